#pragma once
#include "heads.h"

namespace lowrank {

// rms_norm of each query head by wq and of each key head by wk; value heads are copied. (Qwen3)
struct QkNorm {
  Tensor y;   // [T, (H+2G)*D]
  Tensor r;   // [T, H+G], kept for the gradient
  Tensor x;   // [T, (H+2G)*D]
  Tensor wq;  // [D]
  Tensor wk;  // [D]
  Heads heads;
  float eps;

  template <class V>
  LOWRANK_INLINE void visit(V&& v) {
    v.out("y", y, Kind::activation);
    v.out("r", r, Kind::f32);
    v.in("x", x, Kind::activation);
    v.in("wq", wq, Kind::f32);
    v.in("wk", wk, Kind::f32);
    heads.visit(v);
    v.value("eps", eps);
  }
  LOWRANK_INLINE const char* misfit() const {
    if (const char* fault = heads.misfit(x)) return fault;
    if (!same_shape(y, x)) return "y must have the shape of x";
    if (r.count() != x.rows() * (heads.query + heads.key_value)) return "r must be [T, heads + kv_heads]";
    if (wq.count() != heads.size(x)) return "wq must have D elements";
    if (wk.count() != heads.size(x)) return "wk must have D elements";
    return nullptr;
  }
};

// rms_norm_grad head by head; value heads pass dy on. dx may be dy.
struct QkNormGrad {
  Tensor dx;  // [T, (H+2G)*D]
  Tensor dy;  // [T, (H+2G)*D]
  Tensor x;   // [T, (H+2G)*D]
  Tensor wq;  // [D]
  Tensor wk;  // [D]
  Tensor r;   // [T, H+G]
  Heads heads;

  template <class V>
  LOWRANK_INLINE void visit(V&& v) {
    v.out("dx", dx, Kind::activation);
    v.in("dy", dy, Kind::activation);
    v.in("x", x, Kind::activation);
    v.in("wq", wq, Kind::f32);
    v.in("wk", wk, Kind::f32);
    v.in("r", r, Kind::f32);
    heads.visit(v);
  }
  LOWRANK_INLINE const char* misfit() const {
    if (const char* fault = heads.misfit(x)) return fault;
    if (!same_shape(dx, x)) return "dx must have the shape of x";
    if (!same_shape(dy, x)) return "dy must have the shape of x";
    if (r.count() != x.rows() * (heads.query + heads.key_value)) return "r must be [T, heads + kv_heads]";
    if (wq.count() != heads.size(x)) return "wq must have D elements";
    if (wk.count() != heads.size(x)) return "wk must have D elements";
    return nullptr;
  }
};

}  // namespace lowrank
