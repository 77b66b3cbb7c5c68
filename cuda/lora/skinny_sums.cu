#include "skinny_sums.h"

#include "../gemm/pieces.cuh"

namespace lowrank::cuda {

namespace {

constexpr int kThreads = 256;

struct RowSums {
  PartialSums from;
  PartList parts;
  SkinnyRows to;
  int32_t padded[kMostWindows + 1];  // places before window w
};

__global__ void __launch_bounds__(kThreads) add_row_sums(GPU_ARGUMENT RowSums p) {
  const int64_t at = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x, places = p.padded[p.from.count];
  if (at >= p.from.rows * places) return;
  const int64_t row = at / places, place = at % places;
  for (int w = 0; w < kMostWindows; ++w) {
    if (w >= p.from.count || place < p.padded[w] || place >= p.padded[w + 1]) continue;
    const Window& window = p.from.windows[w];
    const int64_t own = place - p.padded[w], rank = p.parts.rank_at(window.rank0 + own);
    if (rank < 0) return;
    float sum = 0;
    for (int64_t block = window.block0; block < window.block0 + window.blocks; ++block) sum += p.from.by_rows[(block * p.from.rows + row) * p.from.ranks + own];
    p.to.out[row * p.parts.ranks() + rank] = sum * p.to.scale[p.parts.part_at(window.rank0 + own)];
  }
}

struct ColumnSums {
  PartialSums from;
  PartList parts;
  SkinnyColumns to;
};

// blockIdx.y: a window.
__global__ void __launch_bounds__(kThreads) add_column_sums(GPU_ARGUMENT ColumnSums p) {
  const Window& window = p.from.windows[blockIdx.y];
  const int64_t at = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (at >= window.columns * window.ranks) return;
  const int64_t own = p.to.flat_b ? at % window.ranks : at / window.columns, column = window.column0 + (p.to.flat_b ? at / window.ranks : at % window.columns);
  const int64_t rank = p.parts.rank_at(window.rank0 + own);
  if (rank < 0) return;
  const int64_t inside = column - window.column0 / kPiece * kPiece, block = window.block0 + inside / p.from.block_columns;
  float sum = 0;
  for (int64_t chunk = 0; chunk < p.from.chunks; ++chunk) {
    sum += p.from.by_columns[((chunk * p.from.blocks + block) * p.from.block_columns + inside % p.from.block_columns) * p.from.ranks + own];
  }
  const Part& part = p.parts.at[p.parts.part_at(window.rank0 + own)];
  const int64_t to = p.to.flat_b ? part.b0 + (column - part.column) * part.rank + rank - part.rank0 : rank * p.to.rank_pitch + column;
  p.to.out[to] += p.to.scale * sum;
}

unsigned blocks_for(int64_t threads) { return static_cast<unsigned>((threads + kThreads - 1) / kThreads); }

void add_rows(Queue& queue, const PartialSums& from, const PartList& parts, const SkinnyRows& to) {
  RowSums sums{from, parts, to, {}};
  for (int w = 0; w < from.count; ++w) sums.padded[w + 1] = sums.padded[w] + from.windows[w].ranks;
  const int64_t count = from.rows * sums.padded[from.count];
  if (count > 0) GPU_LAUNCH(add_row_sums, blocks_for(count), kThreads, 0, queue.stream(), sums);
}

void add_columns(Queue& queue, const PartialSums& from, const PartList& parts, const SkinnyColumns& to) {
  int64_t count = 0;
  for (int w = 0; w < from.count; ++w) {
    const int64_t own = from.windows[w].columns * from.windows[w].ranks;
    count = own > count ? own : count;
  }
  const ColumnSums sums{from, parts, to};
  const dim3 blocks(blocks_for(count), static_cast<unsigned>(from.count));
  if (count > 0 && from.chunks > 0) GPU_LAUNCH(add_column_sums, blocks, kThreads, 0, queue.stream(), sums);
}

}  // namespace

bool lay_out(Queue& queue, PartialSums& sums, bool by_rows, bool by_columns) {
  sums.blocks = 0;
  for (int w = 0; w < sums.count; ++w) {
    Window& window = sums.windows[w];
    const int64_t width = window.columns == 0 ? 0 : window.column0 % kPiece + window.columns;
    window.block0 = sums.blocks, window.blocks = static_cast<int32_t>((width + sums.block_columns - 1) / sums.block_columns);
    sums.blocks += window.blocks;
  }
  if (by_rows && (sums.by_rows = queue.scratch_for<float>(sums.blocks * sums.rows * sums.ranks)) == nullptr) return false;
  if (by_columns && (sums.by_columns = queue.scratch_for<float>(sums.chunks * sums.blocks * sums.block_columns * sums.ranks)) == nullptr) return false;
  return true;
}

void add_up(Queue& queue, const PartialSums& sums, const PartList& parts, const SkinnyRows* rows, const SkinnyColumns* columns) {
  if (rows != nullptr) add_rows(queue, sums, parts, *rows);
  if (columns != nullptr) add_columns(queue, sums, parts, *columns);
}

}  // namespace lowrank::cuda
