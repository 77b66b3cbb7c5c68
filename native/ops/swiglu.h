#pragma once
#include "contract.h"

namespace lowrank {

// y = silu(gate) * up,   silu(z) = z / (1 + exp(-z)),   x = gate | up side by side.   (Shazeer 2020)
struct Swiglu {
  Tensor y;  // [T, F]
  Tensor x;  // [T, 2F]

  template <class V>
  LOWRANK_INLINE void visit(V&& v) {
    v.out("y", y, Kind::activation);
    v.in("x", x, Kind::activation);
  }
  LOWRANK_INLINE const char* misfit() const {
    return is_matrix(x, y.rows(), 2 * y.cols()) ? nullptr : "x must be [T, 2F]";
  }
};

// With q = 1 / (1 + exp(-gate)):   dgate = dy * up * q * (1 + gate * (1 - q)),   dup = dy * gate * q.   dx may be x.
struct SwigluGrad {
  Tensor dx;  // [T, 2F]
  Tensor dy;  // [T, F]
  Tensor x;   // [T, 2F]

  template <class V>
  LOWRANK_INLINE void visit(V&& v) {
    v.out("dx", dx, Kind::activation);
    v.in("dy", dy, Kind::activation);
    v.in("x", x, Kind::activation);
  }
  LOWRANK_INLINE const char* misfit() const {
    if (!same_shape(dx, x)) return "dx must have the shape of x";
    return is_matrix(x, dy.rows(), 2 * dy.cols()) ? nullptr : "x must be [T, 2F]";
  }
};

}  // namespace lowrank
