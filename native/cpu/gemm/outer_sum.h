// Skinny sums over many rows: how the gradients of A and B are taken.
#pragma once
#include "desc.h"

namespace lowrank::cpu::LOWRANK_ISA {

// C [n, rank] += drop(X)^T V: the outer products of X's and V's rows, added up in the order of the rows, a thousand at a time.
struct OuterSum {
  int64_t rows = 0;
  const float* x = nullptr;  // [rows, n]
  int64_t n = 0;
  int64_t x_pitch = 0;
  Dropout drop;  // element (t, i) of X is number t * x_pitch + i
  const float* v = nullptr;  // [rows, rank]
  int64_t rank = 0;
  int64_t v_pitch = 0;
  float* c = nullptr;  // [n, rank]
  int64_t pitch = 0;
  Lie lie = Lie::rows;  // of C: `columns` is [rank, n]
};

// Columns of X in a task, so that there is one for everybody. The bits are the same whatever their number.
int64_t outer_columns(const OuterSum& sum, int threads);

// Floats of memory, aligned for vectors, that add_outer_sum needs.
int64_t outer_room(const OuterSum& sum);

// Rows [begin, begin + n) of C; n is at most outer_columns.
void add_outer_sum(const OuterSum& sum, int64_t begin, int64_t n, float* room);

}  // namespace lowrank::cpu::LOWRANK_ISA
