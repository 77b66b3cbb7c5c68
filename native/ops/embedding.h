#pragma once
#include "contract.h"

namespace lowrank {

// y_t = table[ids_t], plus position_table[positions_t] where given (GPT-2). An id or position outside its table is ERR_RANGE.
struct Embedding {
  Tensor y;               // [T, C]
  Tensor ids;             // [T]
  Tensor table;           // [V, C], frozen
  Tensor positions;       // [T] or not given
  Tensor position_table;  // [P, C], frozen, or not given

  template <class V>
  LOWRANK_INLINE void visit(V&& v) {
    v.out("y", y, Kind::activation);
    v.in("ids", ids, Kind::i32);
    v.in("table", table, Kind::floating);
    v.optional("positions", positions, Kind::i32);
    v.optional("position_table", position_table, Kind::floating);
  }
  LOWRANK_INLINE const char* misfit() const {
    if (ids.count() != y.rows()) return "ids must have T elements";
    if (table.cols() != y.cols()) return "table must have C columns";
    if (positions.given() != position_table.given()) return "positions and position_table go together";
    if (!positions.given()) return nullptr;
    if (positions.count() != y.rows()) return "positions must have T elements";
    return position_table.cols() == y.cols() ? nullptr : "position_table must have C columns";
  }
};

}  // namespace lowrank
