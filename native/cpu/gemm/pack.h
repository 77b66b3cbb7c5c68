// Operands on their way into the micro-kernel: k-major f32 panels, made inside the cache.
#pragma once
#include "desc.h"
#include "transpose.h"

namespace lowrank::cpu::LOWRANK_ISA {

// Floats that packing may write beyond a panel: whole vectors are stored.
constexpr int64_t kPanelSlack = (kTileRows + kLanes - 1) / kLanes * kLanes;

// Rows [row, row + rows) and columns [k0, k0 + k) of `left` (Lie::rows) as panel[k * rows + i], masked by `drop` where that is
// on. Ascending k only: the vectors stored for one k run over into the next.
void pack_left(const Left& left, int64_t row, int64_t rows, int64_t k0, int64_t k, const Dropout& drop, float* panel);

// Whether the micro-kernel can read `right` where it is.
LOWRANK_INLINE bool reads_in_place(const Right& right) {
  return right.lie == Lie::rows && right.dtype == DType::f32 && !right.drop.on();
}

// A block of B: panels of kTileCols columns one after the other, `depth` rows of k each. The last panel has as many whole
// vectors as its columns need, zeros beyond them.
struct Block {
  float* panels;
  int64_t depth;
  int64_t cols;

  LOWRANK_INLINE int64_t count() const { return (cols + kTileCols - 1) / kTileCols; }
  LOWRANK_INLINE int64_t vectors(int64_t panel) const {
    const int64_t left = cols - panel * kTileCols;
    return left >= kTileCols ? kTileVectors : (left + kLanes - 1) / kLanes;
  }
  LOWRANK_INLINE float* at(int64_t panel, int64_t k) const {
    return panels + panel * depth * kTileCols + k * vectors(panel) * kLanes;
  }
};

// Rows [k0, k0 + k) and columns [n0, n0 + block.cols) of `right` into the block, from its row `to` on.
void expand_right(const Right& right, int64_t k0, int64_t k, int64_t n0, const Block& block, int64_t to);

}  // namespace lowrank::cpu::LOWRANK_ISA
