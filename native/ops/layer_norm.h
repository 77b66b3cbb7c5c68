#pragma once
#include "contract.h"

namespace lowrank {

// y = w * (x - mean) * r + b,   r = 1 / sqrt(mean((x - mean)^2) + eps),   one row at a time.   (Ba et al. 2016)
struct LayerNorm {
  Tensor y;     // [N, C]
  Tensor mean;  // [N], kept for the gradient
  Tensor r;     // [N], kept for the gradient
  Tensor x;     // [N, C]
  Tensor w;     // [C]
  Tensor b;     // [C]
  float eps;

  template <class V>
  LOWRANK_INLINE void visit(V&& v) {
    v.out("y", y, Kind::activation);
    v.out("mean", mean, Kind::f32);
    v.out("r", r, Kind::f32);
    v.in("x", x, Kind::activation);
    v.in("w", w, Kind::f32);
    v.in("b", b, Kind::f32);
    v.value("eps", eps);
  }
  LOWRANK_INLINE const char* misfit() const {
    if (!same_shape(y, x)) return "y must have the shape of x";
    if (mean.count() != x.rows()) return "mean must have N elements";
    if (r.count() != x.rows()) return "r must have N elements";
    if (w.count() != x.cols()) return "w must have C elements";
    if (b.count() != x.cols()) return "b must have C elements";
    return nullptr;
  }
};

// With z = (x - mean) * r and g = w * dy:   dx = r * (g - mean(g) - z * mean(g*z)),   plus `carry` where given (see rms_norm_grad).
struct LayerNormGrad {
  Tensor dx;     // [N, C]
  Tensor dy;     // [N, C]
  Tensor x;      // [N, C]
  Tensor w;      // [C]
  Tensor mean;   // [N]
  Tensor r;      // [N]
  Tensor carry;  // [N, C] or not given

  template <class V>
  LOWRANK_INLINE void visit(V&& v) {
    v.out("dx", dx, Kind::activation);
    v.in("dy", dy, Kind::activation);
    v.in("x", x, Kind::activation);
    v.in("w", w, Kind::f32);
    v.in("mean", mean, Kind::f32);
    v.in("r", r, Kind::f32);
    v.optional("carry", carry, Kind::activation);
  }
  LOWRANK_INLINE const char* misfit() const {
    if (!same_shape(dx, x)) return "dx must have the shape of x";
    if (!same_shape(dy, x)) return "dy must have the shape of x";
    if (w.count() != x.cols()) return "w must have C elements";
    if (mean.count() != x.rows()) return "mean must have N elements";
    if (r.count() != x.rows()) return "r must have N elements";
    if (carry.given() && !same_shape(carry, x)) return "carry must have the shape of x";
    return nullptr;
  }
};

}  // namespace lowrank
