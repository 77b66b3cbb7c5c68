#pragma once
#include "contract.h"

namespace lowrank {

// y = w * x * r,   r = 1 / sqrt(mean(x^2) + eps),   one row at a time.   (Zhang & Sennrich 2019)
struct RmsNorm {
  Tensor y;  // [N, C]
  Tensor r;  // [N], kept for the gradient
  Tensor x;  // [N, C]
  Tensor w;  // [C]
  float eps;

  template <class V>
  LOWRANK_INLINE void visit(V&& v) {
    v.out("y", y, Kind::activation);
    v.out("r", r, Kind::f32);
    v.in("x", x, Kind::activation);
    v.in("w", w, Kind::f32);
    v.value("eps", eps);
  }
  LOWRANK_INLINE const char* misfit() const {
    if (!same_shape(y, x)) return "y must have the shape of x";
    if (w.count() != x.cols()) return "w must have C elements";
    if (r.count() != x.rows()) return "r must have N elements";
    return nullptr;
  }
};

// dx = r * (w*dy - x * r^2 * mean(w*dy*x)),   plus `carry` where given: the gradient that arrives at x on
// another way (a residual connection), added in the same pass. dx may be carry itself.
struct RmsNormGrad {
  Tensor dx;     // [N, C]
  Tensor dy;     // [N, C]
  Tensor x;      // [N, C]
  Tensor w;      // [C]
  Tensor r;      // [N]
  Tensor carry;  // [N, C] or not given

  template <class V>
  LOWRANK_INLINE void visit(V&& v) {
    v.out("dx", dx, Kind::activation);
    v.in("dy", dy, Kind::activation);
    v.in("x", x, Kind::activation);
    v.in("w", w, Kind::f32);
    v.in("r", r, Kind::f32);
    v.optional("carry", carry, Kind::activation);
  }
  LOWRANK_INLINE const char* misfit() const {
    if (!same_shape(dx, x)) return "dx must have the shape of x";
    if (!same_shape(dy, x)) return "dy must have the shape of x";
    if (w.count() != x.cols()) return "w must have C elements";
    if (r.count() != x.rows()) return "r must have N elements";
    if (carry.given() && !same_shape(carry, x)) return "carry must have the shape of x";
    return nullptr;
  }
};

}  // namespace lowrank
