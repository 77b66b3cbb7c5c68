#pragma once
#include "contract.h"

namespace lowrank {

// y = x W^T + bias + carry. `carry` is what the result is added to (a residual stream), in the same pass; y may be carry.
struct Linear {
  Tensor y;      // [T, N]
  Tensor x;      // [T, K]
  Weight w;      // [N, K]
  Tensor bias;   // [N] or not given
  Tensor carry;  // [T, N] or not given

  template <class V>
  LOWRANK_INLINE void visit(V&& v) {
    v.out("y", y, Kind::activation);
    v.in("x", x, Kind::activation);
    v.weight("w", w);
    v.optional("bias", bias, Kind::f32);
    v.optional("carry", carry, Kind::activation);
  }
  LOWRANK_INLINE const char* misfit() const {
    if (w.in != x.cols()) return "W must be [N, K]";
    if (!is_matrix(y, x.rows(), w.rows())) return "y must be [T, N]";
    if (bias.given() && bias.count() != w.rows()) return "bias must have N elements";
    if (carry.given() && !same_shape(carry, y)) return "carry must have the shape of y";
    return nullptr;
  }
};

// dx = dy W.
struct LinearGrad {
  Tensor dx;  // [T, K]
  Tensor dy;  // [T, N]
  Weight w;   // [N, K]

  template <class V>
  LOWRANK_INLINE void visit(V&& v) {
    v.out("dx", dx, Kind::activation);
    v.in("dy", dy, Kind::activation);
    v.weight("w", w);
  }
  LOWRANK_INLINE const char* misfit() const {
    if (w.rows() != dy.cols()) return "W must be [N, K]";
    return is_matrix(dx, dy.rows(), w.in) ? nullptr : "dx must be [T, K]";
  }
};

}  // namespace lowrank
