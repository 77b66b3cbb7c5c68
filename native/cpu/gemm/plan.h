// How a product is done: the sizes of its blocks. They depend on the shape and the instruction set alone, never on the number of
// threads or on this machine's caches, so that the same operands give the same bits everywhere.
#pragma once
#include "pack.h"

namespace lowrank::cpu::LOWRANK_ISA {

// Columns of B that a task expands at most, and words of k between two visits of C. kMaxBlock * kMaxDepth floats of B are to stay in L2
// beside a panel of A and what is asked for of the next block: 384 KiB of the 1 MiB and more that processors with AVX-512 have; half of that
// where L2 may be 512 KiB. There a narrow, deep block is best (on Zen 3 1 to 3 % faster than 64 x 768, which was 2 % faster than 128 x 384).
#if HWY_TARGET <= HWY_AVX3 || HWY_ARCH_ARM_A64
constexpr int64_t kMaxBlock = 256;
constexpr int64_t kMaxDepth = 384;
#else
constexpr int64_t kMaxBlock = 48;
constexpr int64_t kMaxDepth = 1024;
#endif
// A product this short (a low-rank one) rides in the accumulators of another.
constexpr int64_t kMaxRide = 128;
// Bytes of packed A; more rows than fit are done in turns.
constexpr int64_t kPackedBytes = 16 << 20;

struct Plan {
  Words words;         // what products with frozen weights multiply
  bool emulated;       // AMX's tiles are
  int64_t width;       // words of a packed row: all the Lefts together
  int64_t panels;      // panels of rows in one turn
  int64_t turns;
  int64_t turn_rows;   // rows of each turn but the last
  int64_t panel_size;  // floats from one packed panel to the next
};

Plan plan_gemm(const Gemm& gemm, FrozenProducts frozen);

// How Left i is packed. A Left of a frozen product is used by no other.
Words left_words(const Gemm& gemm, const Plan& plan, int i);

// Rows [first, first + count) of panel p of the m rows of a turn: all panels are full but for one row.
struct PanelRows {
  int64_t first, count;
};
LOWRANK_INLINE int64_t panels_of(int64_t m) { return (m + kTileRows - 1) / kTileRows; }
LOWRANK_INLINE PanelRows panel_rows(int64_t m, int64_t panels, int64_t p) {
  const int64_t least = m / panels, more = m % panels;
  return {p * least + (p < more ? p : more), least + (p < more ? 1 : 0)};
}

// Width of the next block when `left` columns are still to be given out: blocks shrink towards the end, so that no worker is left
// waiting for a big last one. Sums go along k, so the bits are the same whatever the width.
LOWRANK_INLINE int64_t next_block(int64_t left, int threads) {
  const int64_t share = threads == 1 ? kMaxBlock : (left / 8 + kTileCols - 1) / kTileCols * kTileCols;
  const int64_t block = share < kTileCols ? kTileCols : share > kMaxBlock ? kMaxBlock : share;
  return block < left ? block : left;
}

// A stretch of k that goes through the accumulators at once: of one product, and of a short one (always f32, and the only one that may have
// a mask) that rides along.
struct Slab {
  int product[2];
  int64_t k0[2];
  int64_t k[2];
  Words words;  // of the first

  LOWRANK_INLINE int64_t rows(int run) const { return count_words(run == 0 ? words : Words::f32, k[run]); }
};

// Writes the slabs of all products; there is always one. Returns their number. `slabs` may be nullptr.
int64_t list_slabs(const Columns& columns, Words frozen, Slab* slabs);

// The plan in one line.
void format_plan(const Gemm& gemm, const Plan& plan, int threads, char* text, size_t size);

}  // namespace lowrank::cpu::LOWRANK_ISA
