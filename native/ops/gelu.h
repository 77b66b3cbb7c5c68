#pragma once
#include "contract.h"

namespace lowrank {

// y = x * Phi(x) (Hendrycks & Gimpel 2016). form 0: Phi by erf.  form 1: Phi(x) ~ (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3))) / 2.
struct Gelu {
  Tensor y;  // any shape
  Tensor x;  // the same
  int64_t form;

  template <class V>
  LOWRANK_INLINE void visit(V&& v) {
    v.out("y", y, Kind::activation);
    v.in("x", x, Kind::activation);
    v.value("form", form);
  }
  LOWRANK_INLINE const char* misfit() const {
    if (form != 0 && form != 1) return "form must be 0 (erf) or 1 (tanh)";
    return same_shape(y, x) ? nullptr : "y must have the shape of x";
  }
};

// dx = dy * d(gelu)/dx. dx may be x or dy.
struct GeluGrad {
  Tensor dx;  // any shape
  Tensor dy;  // the same
  Tensor x;   // the same
  int64_t form;

  template <class V>
  LOWRANK_INLINE void visit(V&& v) {
    v.out("dx", dx, Kind::activation);
    v.in("dy", dy, Kind::activation);
    v.in("x", x, Kind::activation);
    v.value("form", form);
  }
  LOWRANK_INLINE const char* misfit() const {
    if (form != 0 && form != 1) return "form must be 0 (erf) or 1 (tanh)";
    if (!same_shape(dx, x)) return "dx must have the shape of x";
    return same_shape(dy, x) ? nullptr : "dy must have the shape of x";
  }
};

}  // namespace lowrank
