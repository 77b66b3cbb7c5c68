#pragma once
#include "contract.h"

namespace lowrank {

// sum = sum of x^2, added in f64 in a fixed order.
struct SumSquares {
  Tensor sum;  // [1]
  Tensor x;    // any shape

  template <class V>
  LOWRANK_INLINE void visit(V&& v) {
    v.out("sum", sum, Kind::f32);
    v.in("x", x, Kind::f32);
  }
  LOWRANK_INLINE const char* misfit() const { return sum.count() == 1 ? nullptr : "sum must have one element"; }
};

// What every optimizer step asks before it changes anything: are losses and gradient norm finite (if not, nothing is written),
// and by how much is the gradient scaled:   min(1, clip / (norm + 1e-6)) / loss_scale,   1 / loss_scale with clip = 0,
// where norm = sqrt(sum_squares) / loss_scale. loss_scale is what the losses were multiplied by before they went back (f16); 0: as 1.
struct Gate {
  Tensor sum_squares;  // [1], of the whole gradient
  Tensor losses;       // [micro-batches]
  float clip;
  float loss_scale;

  template <class V>
  LOWRANK_INLINE void visit(V&& v) {
    v.in("sum_squares", sum_squares, Kind::f32);
    v.in("losses", losses, Kind::f32);
    v.value("clip", clip);
    v.value("loss_scale", loss_scale);
  }
  LOWRANK_INLINE double unscale() const { return loss_scale == 0.0f ? 1.0 : 1.0 / static_cast<double>(loss_scale); }
  LOWRANK_INLINE const char* misfit() const {
    if (sum_squares.count() != 1) return "sum_squares must have one element";
    if (!(loss_scale >= 0.0f && loss_scale < 1e38f)) return "loss_scale must be finite and not negative";
    return clip >= 0.0f ? nullptr : "clip must not be negative";
  }
};

// AdamW (Loshchilov & Hutter 2019), torch.optim's arithmetic. With g the gated gradient:
//   m += (1 - beta1) (g - m),   v = beta2 v + (1 - beta2) g^2,
//   p = p (1 - lr weight_decay) - lr / correction1 * m / (sqrt(v) / sqrt(correction2) + eps),   correction_i = 1 - beta_i^step.
struct Adamw {
  Tensor p;  // [n]
  Tensor m;  // [n]
  Tensor v;  // [n]
  Tensor g;  // [n]
  Gate gate;
  float lr, beta1, beta2, eps, weight_decay, correction1, correction2;

  template <class V>
  LOWRANK_INLINE void visit(V&& visitor) {
    visitor.inout("p", p, Kind::f32);
    visitor.inout("m", m, Kind::f32);
    visitor.inout("v", v, Kind::f32);
    visitor.in("g", g, Kind::f32);
    gate.visit(visitor);
    visitor.value("lr", lr);
    visitor.value("beta1", beta1);
    visitor.value("beta2", beta2);
    visitor.value("eps", eps);
    visitor.value("weight_decay", weight_decay);
    visitor.value("correction1", correction1);
    visitor.value("correction2", correction2);
  }
  LOWRANK_INLINE const char* misfit() const {
    if (!same_shape(p, g) || !same_shape(p, m) || !same_shape(p, v)) return "p, m, v and g must have one shape";
    return gate.misfit();
  }
};

// SGD, torch.optim's arithmetic. With g the gated gradient plus weight_decay * p:
//   momentum 0: p -= lr g.   Otherwise: buffer = first ? g : momentum * buffer + g,   p -= lr buffer.
struct Sgd {
  Tensor p;       // [n]
  Tensor buffer;  // [n], or not given with momentum 0
  Tensor g;       // [n]
  Gate gate;
  float lr, momentum, weight_decay;
  int64_t first;  // 1 on the first step

  template <class V>
  LOWRANK_INLINE void visit(V&& v) {
    v.inout("p", p, Kind::f32);
    v.optional_inout("buffer", buffer, Kind::f32);
    v.in("g", g, Kind::f32);
    gate.visit(v);
    v.value("lr", lr);
    v.value("momentum", momentum);
    v.value("weight_decay", weight_decay);
    v.value("first", first);
  }
  LOWRANK_INLINE const char* misfit() const {
    if (!same_shape(p, g)) return "p and g must have one shape";
    if (momentum != 0.0f && !buffer.given()) return "momentum needs a buffer";
    if (buffer.given() && !same_shape(p, buffer)) return "p and buffer must have one shape";
    return gate.misfit();
  }
};

}  // namespace lowrank
