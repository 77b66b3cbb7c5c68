#pragma once
#include "contract.h"

namespace lowrank {

// y = x, bit for bit.
struct Copy {
  Tensor y;  // any shape and dtype
  Tensor x;  // the same

  template <class V>
  LOWRANK_INLINE void visit(V&& v) {
    v.out("y", y, Kind::any);
    v.in("x", x, Kind::any);
  }
  LOWRANK_INLINE const char* misfit() const {
    if (!same_shape(y, x)) return "y must have the shape of x";
    if (y.dtype != x.dtype) return "y must have the dtype of x";
    return nullptr;
  }
};

// y = x in another float type, rounded to nearest even.
struct Cast {
  Tensor y;  // any shape; f32, f16 or bf16
  Tensor x;  // the same shape; f32, f16 or bf16

  template <class V>
  LOWRANK_INLINE void visit(V&& v) {
    v.out("y", y, Kind::floating);
    v.in("x", x, Kind::floating);
  }
  LOWRANK_INLINE const char* misfit() const {
    return same_shape(y, x) ? nullptr : "y must have the shape of x";
  }
};

// y = value in every element.
struct Fill {
  Tensor y;  // any shape
  float value;

  template <class V>
  LOWRANK_INLINE void visit(V&& v) {
    v.out("y", y, Kind::activation);
    v.value("value", value);
  }
  LOWRANK_INLINE const char* misfit() const { return nullptr; }
};

// y = a + b. y may be a or b.
struct Add {
  Tensor y;  // any shape
  Tensor a;  // the same
  Tensor b;  // the same

  template <class V>
  LOWRANK_INLINE void visit(V&& v) {
    v.out("y", y, Kind::activation);
    v.in("a", a, Kind::activation);
    v.in("b", b, Kind::activation);
  }
  LOWRANK_INLINE const char* misfit() const {
    if (!same_shape(a, b)) return "a must have the shape of b";
    return same_shape(y, a) ? nullptr : "y must have the shape of a";
  }
};

}  // namespace lowrank
