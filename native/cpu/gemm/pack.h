// Operands on their way into the micro-kernel: k-major panels, made inside the cache.
#pragma once
#include "desc.h"
#include "tile.h"

namespace lowrank::cpu::LOWRANK_ISA {

// Floats that packing may write beyond a panel: whole vectors are stored.
constexpr int64_t kPanelSlack = (kTileRows + kLanes - 1) / kLanes * kLanes;

// Rows [row, row + rows) of `left` as panel[k * rows + i], masked by `drop` where that is on. Ascending k only: the vectors stored for one k
// run over into the next.
void pack_left(const Left& left, int64_t row, int64_t rows, const Dropout& drop, float* panel);

// A packed panel of f32, `k` runs of `rows`, as bf16 pairs. Reads up to kPanelSlack beyond `wide`, writes as pack_left does.
void pair_panel(const float* wide, int64_t rows, int64_t k, float* panel);

// The same rows as bf16 pairs in tiles for AMX, [rows, kAmxWords] each: what lies beyond the Left's k is zero.
void pair_tiles(const Left& left, int64_t row, int64_t rows, float* panel);

// Words that k numbers of a panel fill.
LOWRANK_INLINE int64_t count_words(Words words, int64_t k) {
  if (words == Words::f32) return k;
  return words == Words::bf16_pairs ? (k + 1) / 2 : (k + 2 * kAmxWords - 1) / (2 * kAmxWords) * kAmxWords;
}

// A block of B: panels of kTileCols columns one after the other, `depth` rows of words each. The last panel has as many whole
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
  LOWRANK_INLINE float* at(int64_t panel, int64_t row) const {
    return panels + panel * depth * kTileCols + row * vectors(panel) * kLanes;
  }
};

// Rows [k0, k0 + k) and columns [n0, n0 + block.cols) of `right` into the block as f32, from its row `to` on.
void expand_right(const Right& right, int64_t k0, int64_t k, int64_t n0, const Block& block, int64_t to);

// The same as bf16 pairs, from row 0 on; k0 is even. Below them, before row `end`, are zeros.
void pair_up_right(const Right& right, int64_t k0, int64_t k, int64_t n0, const Block& block, int64_t end);

}  // namespace lowrank::cpu::LOWRANK_ISA
