// The one place where matrices are multiplied.
#pragma once
#include "plan.h"

namespace lowrank::cpu::LOWRANK_ISA {

// C = sum of the products, for each of `first`'s blocks of columns; then, with the same hands, the `rest`, whose Lefts all lie as
// columns and may be what the sides of `first` made. No C may be an operand, but for Columns::carry.
void multiply(const Context& context, const Gemm& first, const Gemm* rest, int rest_count);

LOWRANK_INLINE void multiply(const Context& context, const Gemm& gemm) { multiply(context, gemm, nullptr, 0); }

}  // namespace lowrank::cpu::LOWRANK_ISA
