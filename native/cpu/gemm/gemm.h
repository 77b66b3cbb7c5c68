// The one place where matrices are multiplied.
#pragma once
#include "outer_sum.h"
#include "plan.h"

namespace lowrank::cpu::LOWRANK_ISA {

// C = sum of the products, for each block of columns; with the same hands the outer sums, which may read what the sides made.
// No C may be an operand, but for Columns::carry.
void multiply(const Context& context, const Gemm& gemm, const OuterSum* sums, int count);

LOWRANK_INLINE void multiply(const Context& context, const Gemm& gemm) { multiply(context, gemm, nullptr, 0); }

}  // namespace lowrank::cpu::LOWRANK_ISA
