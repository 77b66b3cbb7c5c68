#pragma once
#include "lora_linear.h"
#include "swiglu.h"

namespace lowrank {

// A gated MLP is down(swiglu(gate|up(x))). Each of these is two ops, one behind the other, for backends that save a pass over what lies between.

// swiglu makes h of x = gate | up, and lora_linear makes y and u of h.
struct SwigluThenLoraLinear {
  Tensor y;      // [T, N]
  Tensor u;      // [T, R], kept for the gradient
  Tensor h;      // [T, K], kept for the gradient
  Tensor x;      // [T, 2K]
  Weight w;      // [N, K]
  Tensor bias;   // [N] or not given
  Tensor carry;  // [T, N] or not given; y may be carry
  Tensor a;      // [R, K], the parts one below the other
  Tensor b;      // flat: part after part, each [N_i, r_i]
  LoraParts parts;

  template <class V>
  LOWRANK_INLINE void visit(V&& v) {
    v.out("y", y, Kind::activation);
    v.out("u", u, Kind::f32);
    v.out("h", h, Kind::activation);
    v.in("x", x, Kind::activation);
    v.weight("w", w);
    v.optional("bias", bias, Kind::f32);
    v.optional("carry", carry, Kind::activation);
    v.in("a", a, Kind::f32);
    v.in("b", b, Kind::f32);
    parts.visit(v);
  }
  LOWRANK_INLINE Swiglu first() const { return {h, x}; }
  LOWRANK_INLINE LoraLinear second() const { return {y, u, h, w, bias, carry, a, b, parts}; }
  LOWRANK_INLINE const char* misfit() const {
    if (first().misfit() != nullptr) return "x must be [T, 2K] for an h of [T, K]";
    return second().misfit();
  }
};

// swiglu_grad makes dy of dh and y = gate | up, and lora_linear_grad makes dx, dA and dB of dy. What made y was that lora_linear.
struct SwigluGradThenLoraLinearGrad {
  Tensor dx;  // [T, K] or not given
  Tensor da;  // [R, K], added to
  Tensor db;  // flat like b, added to
  Tensor dy;  // [T, N]; may be y
  Tensor dh;  // [T, N/2]
  Tensor y;   // [T, N]
  Tensor x;   // [T, K]
  Tensor u;   // [T, R]
  Weight w;   // [N, K]
  Tensor a;   // [R, K]
  Tensor b;   // flat
  LoraParts parts;

  template <class V>
  LOWRANK_INLINE void visit(V&& v) {
    v.optional_out("dx", dx, Kind::activation);
    v.inout("da", da, Kind::f32);
    v.inout("db", db, Kind::f32);
    v.out("dy", dy, Kind::activation);
    v.in("dh", dh, Kind::activation);
    v.in("y", y, Kind::activation);
    v.in("x", x, Kind::activation);
    v.in("u", u, Kind::f32);
    v.weight("w", w);
    v.in("a", a, Kind::f32);
    v.in("b", b, Kind::f32);
    parts.visit(v);
  }
  LOWRANK_INLINE SwigluGrad first() const { return {dy, dh, y}; }
  LOWRANK_INLINE LoraLinearGrad second() const { return {dx, da, db, dy, x, u, w, a, b, parts}; }
  LOWRANK_INLINE const char* misfit() const {
    if (first().misfit() != nullptr) return "y must be [T, N], like dy, and dh [T, N/2]";
    return second().misfit();
  }
};

}  // namespace lowrank
