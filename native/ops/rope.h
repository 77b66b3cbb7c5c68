#pragma once
#include "heads.h"

namespace lowrank {

// Rotary embedding in place (Su et al. 2021), in Hugging Face's half-split order. With c, s = cos, sin of the row's position and
// a, b = the lower and upper half of a head's first E numbers:   a' = a*c - b*s,   b' = b*c + a*s.
// Query and key heads turn, value heads stay. direction = -1 turns back, which is the gradient.
struct RopeInplace {
  Tensor x;          // [T, (H+2G)*D]
  Tensor positions;  // [T]; each must be below P
  Tensor table;      // [P, E], cos in the first E/2 columns and sin in the others; E even, E <= D
  Heads heads;
  float direction;   // 1 or -1

  template <class V>
  LOWRANK_INLINE void visit(V&& v) {
    v.inout("x", x, Kind::activation);
    v.in("positions", positions, Kind::i32);
    v.in("table", table, Kind::f32);
    heads.visit(v);
    v.value("direction", direction);
  }
  LOWRANK_INLINE const char* misfit() const {
    if (const char* fault = heads.misfit(x)) return fault;
    if (positions.count() != x.rows()) return "positions must have T elements";
    if (table.cols() % 2 != 0 || table.cols() > heads.size(x)) return "table must have an even number of columns, at most D";
    if (direction != 1.0f && direction != -1.0f) return "direction must be 1 or -1";
    return nullptr;
  }
};

}  // namespace lowrank
