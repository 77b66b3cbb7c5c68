// What the blocks of a skinny product leave: each has sums of its own, and what a result gets is added from them in order.
#pragma once
#include "skinny.h"

namespace lowrank::cuda {

constexpr int kMostWindows = 4;

struct PartialSums {
  int64_t rows = 0, chunks = 0;         // of z; a chunk of rows is a block's
  int32_t ranks = 0, block_columns = 0;  // that a block has sums for
  int32_t count = 0, blocks = 0;         // of windows, and of blocks across them
  Window windows[kMostWindows];
  float* by_rows = nullptr;     // [blocks, rows, ranks]
  bool ranks_first = false;
  float* by_columns = nullptr;  // [chunks, blocks, block_columns, ranks]; ranks_first: [chunks, blocks, ranks, block_columns]
};

// A launch has about two blocks for each multiprocessor of a large chip, in one wave. It is a number of its own, so that sums are cut in the
// same places on every chip. In the emulator matrices are small, and blocks few, so that they still have several tiles.
#ifdef LOWRANK_CUSIM
constexpr int64_t kMostBlocks = 6;
#else
constexpr int64_t kMostBlocks = 264;
#endif

// What a block goes over: tiles of `rows` by `columns`, at least `across` from left to right and one from top to bottom. More make the
// blocks fewer: from left to right up to `most_across`, then from top to bottom up to `most_down`.
struct Tiling {
  int64_t rows, columns, across, most_across, most_down;
  int64_t together = 1;  // windows that a block has at once
};
// As many tiles as leave kMostBlocks: cuts the sums, and says how many there are from top to bottom.
int32_t cut_among_blocks(PartialSums& sums, const Tiling& tiling);

// Gives each window its blocks, and them memory for their sums. False: the op has been failed.
bool lay_out(Queue& queue, PartialSums& sums, bool by_rows, bool by_columns);

// Either result may be missing, as in `skinny`.
void add_up(Queue& queue, DType dtype, const PartialSums& sums, const PartList& parts, const SkinnyRows* rows, const SkinnyColumns* columns);

}  // namespace lowrank::cuda
