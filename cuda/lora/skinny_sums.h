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
  float* by_columns = nullptr;  // [chunks, blocks, block_columns, ranks]
};

// Gives each window its blocks, and them memory for their sums. False: the op has been failed.
bool lay_out(Queue& queue, PartialSums& sums, bool by_rows, bool by_columns);

// Either result may be missing, as in `skinny`.
void add_up(Queue& queue, const PartialSums& sums, const PartList& parts, const SkinnyRows* rows, const SkinnyColumns* columns);

}  // namespace lowrank::cuda
