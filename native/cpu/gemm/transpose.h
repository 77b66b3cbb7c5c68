// kLanes x kLanes numbers of 32 bits, rows to columns, in registers.
#pragma once
#include "tile.h"

namespace lowrank::cpu::LOWRANK_ISA {

static_assert(kLanes == 4 || kLanes == 8 || kLanes == 16);

// 4 x 4 inside each 128-bit block: four rows become, block by block, four columns.
template <class D>
LOWRANK_INLINE void transpose_in_blocks(D d, hn::Vec<D>* v) {
  const hn::Repartition<uint64_t, D> wide;
  const auto a = hn::BitCast(wide, hn::InterleaveLower(d, v[0], v[1])), b = hn::BitCast(wide, hn::InterleaveUpper(d, v[0], v[1]));
  const auto e = hn::BitCast(wide, hn::InterleaveLower(d, v[2], v[3])), f = hn::BitCast(wide, hn::InterleaveUpper(d, v[2], v[3]));
  v[0] = hn::BitCast(d, hn::InterleaveLower(wide, a, e));
  v[1] = hn::BitCast(d, hn::InterleaveUpper(wide, a, e));
  v[2] = hn::BitCast(d, hn::InterleaveLower(wide, b, f));
  v[3] = hn::BitCast(d, hn::InterleaveUpper(wide, b, f));
}

// v[i] holds row i; afterwards v[i] holds column i.
template <class D>
LOWRANK_INLINE void transpose(D d, hn::Vec<D> (&v)[kLanes]) {
  HWY_UNROLL(4)
  for (int i = 0; i < kLanes; i += 4) transpose_in_blocks(d, v + i);
  if constexpr (kLanes == 8) {
    HWY_UNROLL(4)
    for (int j = 0; j < 4; ++j) {
      const auto low = v[j], high = v[4 + j];
      v[j] = hn::ConcatLowerLower(d, high, low);
      v[4 + j] = hn::ConcatUpperUpper(d, high, low);
    }
  } else if constexpr (kLanes == 16) {
    HWY_UNROLL(4)
    for (int j = 0; j < 4; ++j) {
      // x, y: blocks of rows 0-3 and 4-7 (8-11 and 12-15) in turn; 0 takes blocks 0 and 2, 1 takes blocks 1 and 3.
      const auto x0 = hn::OddEvenBlocks(hn::SwapAdjacentBlocks(v[4 + j]), v[j]);
      const auto x1 = hn::OddEvenBlocks(v[4 + j], hn::SwapAdjacentBlocks(v[j]));
      const auto y0 = hn::OddEvenBlocks(hn::SwapAdjacentBlocks(v[12 + j]), v[8 + j]);
      const auto y1 = hn::OddEvenBlocks(v[12 + j], hn::SwapAdjacentBlocks(v[8 + j]));
      v[j] = hn::ConcatLowerLower(d, y0, x0);
      v[4 + j] = hn::ConcatLowerLower(d, y1, x1);
      v[8 + j] = hn::ConcatUpperUpper(d, y0, x0);
      v[12 + j] = hn::ConcatUpperUpper(d, y1, x1);
    }
  }
}

}  // namespace lowrank::cpu::LOWRANK_ISA
