#pragma once
#include "contract.h"

namespace lowrank {

// Rows whose target is this take no part: their loss and gradient are 0.
constexpr int32_t kIgnoreIndex = -100;

// loss = sum over rows with a target of  log(sum_j exp(l_j)) - l_target;   logits become scale * (softmax(l) - onehot(target)), in place.
// Rows whose target is -100 take no part: their loss and gradient are 0. Any other target outside [0, V) is ERR_RANGE.
struct CrossEntropyInplace {
  Tensor loss;     // [1], the token sum
  Tensor logits;   // [T, V], then its gradient
  Tensor targets;  // [T]
  float scale;

  template <class V>
  LOWRANK_INLINE void visit(V&& v) {
    v.out("loss", loss, Kind::f32);
    v.inout("logits", logits, Kind::activation);
    v.in("targets", targets, Kind::i32);
    v.value("scale", scale);
  }
  LOWRANK_INLINE const char* misfit() const {
    if (loss.count() != 1) return "loss must have one element";
    return targets.count() == logits.rows() ? nullptr : "targets must have T elements";
  }
};

// Cross entropy of logits = x W^T that never exist as a whole: a chunk of rows at a time, gradient taken on the way.
//   dx = scale * (softmax(x W^T) - onehot(targets)) W.   Targets are cross_entropy_inplace's.
struct LinearCrossEntropy {
  Tensor loss;     // [1], the token sum
  Tensor dx;       // [T, C] or not given (evaluation)
  Tensor x;        // [T, C]
  Weight w;        // [V, C]
  Tensor targets;  // [T]
  float scale;

  template <class V>
  LOWRANK_INLINE void visit(V&& v) {
    v.out("loss", loss, Kind::f32);
    v.optional_out("dx", dx, Kind::activation);
    v.in("x", x, Kind::activation);
    v.weight("w", w);
    v.in("targets", targets, Kind::i32);
    v.value("scale", scale);
  }
  LOWRANK_INLINE const char* misfit() const {
    if (loss.count() != 1) return "loss must have one element";
    if (dx.given() && !same_shape(dx, x)) return "dx must have the shape of x";
    if (w.in != x.cols()) return "W must be [V, C]";
    return targets.count() == x.rows() ? nullptr : "targets must have T elements";
  }
};

}  // namespace lowrank
