#include "skinny_sums.h"

#include "../gemm/pieces.cuh"
#include "spread.cuh"

namespace lowrank::cuda {

namespace {

// Pieces are added four neighbours to a thread, and eight loads are under way before the first is needed.
constexpr int kThreads = 256, kFour = 4, kUnderWay = 8;
constexpr int kBlockRows = 32;

// from[0] + from[step] + ... in this order.
GPU_FN float4 sum_of(const float* from, int64_t step, int32_t count) {
  float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
  GPU_NO_UNROLL
  for (int32_t first = 0; first < count; first += kUnderWay) {
    float4 own[kUnderWay];
    GPU_UNROLL
    for (int i = 0; i < kUnderWay; ++i) own[i] = first + i < count ? *reinterpret_cast<const float4*>(from + (first + i) * step) : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    GPU_UNROLL
    for (int i = 0; i < kUnderWay; ++i) sum.x += own[i].x, sum.y += own[i].y, sum.z += own[i].z, sum.w += own[i].w;
  }
  return sum;
}

// Of one launch: first blocks that add rows, then blocks that add columns, column_blocks of them for each window.
struct Sums {
  PartialSums from;
  PartList parts;
  SkinnyRows rows;
  SkinnyColumns columns;
  int32_t padded[kMostWindows + 1];  // places before window w
  uint32_t row_blocks, column_blocks;
};

// Four places of row `row` from `place` on: all of a window and of a part.
GPU_FN void add_row(const Sums& p, int64_t row, int32_t place, float* sums) {
  int w = 0;
  for (int next = 1; next < kMostWindows; ++next) {
    if (next < p.from.count && place >= p.padded[next]) w = next;
  }
  const Window& window = p.from.windows[w];
  const int32_t own = place - p.padded[w];
  const float4 sum = sum_of(p.from.by_rows + (window.block0 * p.from.rows + row) * p.from.ranks + own, p.from.rows * p.from.ranks, window.blocks);
  const int which = p.parts.part_of_place(window.rank0 + own);
  const Part& part = p.parts.at[which];
  const float scale = p.rows.scale[which], four[kFour] = {sum.x, sum.y, sum.z, sum.w};
  const auto inside = static_cast<int32_t>(window.rank0 + own - part.padded0);
  GPU_UNROLL
  for (int e = 0; e < kFour; ++e) {
    if (inside + e >= part.rank) continue;
    const int64_t rank = part.rank0 + inside + e;
    if (p.rows.spreads > 0) sums[rank] = four[e] * scale;
    p.rows.out[row * p.parts.ranks() + rank] = four[e] * scale;
  }
}

// A thread's share of a block's rows, `wide` pieces each: piece `own` and each `beside`-th behind it, of row `row` and each `apart`-th below
// it. So what has to be known of a piece is found once for many rows. A thread too many begins behind the last row.
struct Turns {
  int32_t own, beside, row, apart;
};
GPU_FN Turns turns_of(int32_t wide) {
  const int32_t beside = wide < kThreads ? wide : kThreads, apart = kThreads / beside;
  const int32_t thread = static_cast<int32_t>(threadIdx.x), row = thread / beside;
  return {thread % beside, beside, row < apart ? row : kBlockRows, apart};
}

// A block's: kBlockRows rows, which it keeps in shared memory, and spreads where they are wanted in 16 bits.
template <class H>
GPU_FN void add_rows(const Sums& p, float* sums) {  // [kBlockRows, ranks]
  const int64_t row0 = static_cast<int64_t>(blockIdx.x) * kBlockRows;
  const int32_t ranks = static_cast<int32_t>(p.parts.ranks()), fours = p.padded[p.from.count] / kFour;
  const int32_t rows = p.from.rows - row0 < kBlockRows ? static_cast<int32_t>(p.from.rows - row0) : kBlockRows;
  for (int32_t i = threadIdx.x; i < rows * fours; i += kThreads) add_row(p, row0 + i / fours, i % fours * kFour, sums + i / fours * ranks);
  __syncthreads();
  for (int which = 0; which < p.rows.spreads; ++which) {
    const Spread& s = p.rows.spread[which];
    const int32_t pieces = (s.slots.count + kOwnSlots - 1) / kOwnSlots;
    if (pieces == 0) continue;
    const Turns turns = turns_of(pieces);
    for (int32_t piece = turns.own; piece < pieces; piece += turns.beside) {
      const OwnSlots own = own_slots(s, piece * kOwnSlots);
      for (int32_t row = turns.row; row < rows; row += turns.apart) write_slots<H>(s, own, RankRow{sums + row * ranks, 1, 0, ranks, 0.0f}, row0 + row);
    }
  }
}

// Number `e` of a window's sums, counted as they lie in the result: their rank in the window, and the column in the window's blocks.
struct InWindow {
  int32_t own, column;
};
GPU_FN InWindow in_window(const Sums& p, const Window& window, uint32_t e) {
  const auto ranks = static_cast<uint32_t>(window.ranks), columns = static_cast<uint32_t>(window.blocks * p.from.block_columns);
  if (!p.from.ranks_first) return {static_cast<int32_t>(e % ranks), static_cast<int32_t>(e / ranks)};
  return {static_cast<int32_t>(e / columns), static_cast<int32_t>(e % columns)};
}

// A thread's: four neighbours, as they lie in the pieces and in the result: ranks of the flat B, else columns.
GPU_FN void add_columns(const Sums& p, uint32_t block_of_columns) {
  const Window& window = p.from.windows[block_of_columns / p.column_blocks];
  const uint32_t first = (block_of_columns % p.column_blocks * kThreads + threadIdx.x) * kFour;
  const int32_t block_columns = p.from.block_columns;
  if (first >= static_cast<uint64_t>(window.blocks * block_columns) * static_cast<uint64_t>(window.ranks)) return;
  const InWindow at = in_window(p, window, first);
  const Part& part = p.parts.at[p.parts.part_of_place(window.rank0 + at.own)];
  const int64_t inside = window.rank0 + at.own - part.padded0, column = window.column0 / kPiece * kPiece + at.column, end = window.column0 + window.columns;
  const int64_t rank_end = p.from.ranks_first ? kFour : part.rank - inside;
  if (inside >= part.rank || column >= end) return;
  float* to = p.columns.out + (p.columns.flat_b ? part.b0 + (column - part.column) * part.rank + inside : (part.rank0 + inside) * p.columns.rank_pitch + column);
  bool wanted[kFour];
  float old[kFour];
  GPU_UNROLL
  for (int e = 0; e < kFour; ++e) {
    const int64_t own = p.from.ranks_first ? column + e : column;
    wanted[e] = own >= window.column0 && own < end && e < rank_end;
    old[e] = wanted[e] ? to[e] : 0.0f;
  }
  const int32_t block = window.block0 + at.column / block_columns, across = at.column % block_columns;
  const int32_t place = p.from.ranks_first ? at.own * block_columns + across : across * p.from.ranks + at.own;
  const int64_t size = static_cast<int64_t>(block_columns) * p.from.ranks;
  const float4 sum = sum_of(p.from.by_columns + block * size + place, p.from.blocks * size, static_cast<int32_t>(p.from.chunks));
  const float four[kFour] = {sum.x, sum.y, sum.z, sum.w};
  GPU_UNROLL
  for (int e = 0; e < kFour; ++e) {
    if (wanted[e]) to[e] = fmaf(p.columns.scale, four[e], old[e]);
  }
}

template <class H>
__global__ void __launch_bounds__(kThreads) add_sums(GPU_ARGUMENT Sums p) {
  GPU_SHARED(shared);
  if (blockIdx.x < p.row_blocks) add_rows<H>(p, reinterpret_cast<float*>(shared));
  else add_columns(p, blockIdx.x - p.row_blocks);
}

int32_t blocks_of(const Window& window, int32_t block_columns) {
  const int64_t width = window.columns == 0 ? 0 : window.column0 % kPiece + window.columns;
  return static_cast<int32_t>((width + block_columns - 1) / block_columns);
}

unsigned blocks_for(int64_t count, int64_t each) { return static_cast<unsigned>((count + each - 1) / each); }

void set_rows(Sums& sums, const SkinnyRows& rows) {
  sums.rows = rows;
  for (int w = 0; w < sums.from.count; ++w) sums.padded[w + 1] = sums.padded[w] + sums.from.windows[w].ranks;
  if (sums.padded[sums.from.count] > 0) sums.row_blocks = blocks_for(sums.from.rows, kBlockRows);
}

void set_columns(Sums& sums, const SkinnyColumns& columns) {
  sums.columns = columns;
  int64_t most = 0;
  for (int w = 0; w < sums.from.count; ++w) {
    const int64_t own = static_cast<int64_t>(sums.from.windows[w].blocks) * sums.from.block_columns * sums.from.windows[w].ranks;
    most = own > most ? own : most;
  }
  if (sums.from.chunks > 0) sums.column_blocks = blocks_for(most, kFour * kThreads);
}

}  // namespace

int32_t cut_among_blocks(PartialSums& sums, const Tiling& tiling) {
  const int64_t tiles = (sums.rows + tiling.rows - 1) / tiling.rows;
  int64_t across = tiling.across, down = 1;
  const auto cut = [&] {
    sums.block_columns = static_cast<int32_t>(across * tiling.columns), sums.chunks = (tiles + down - 1) / down;
    int64_t blocks = 0;
    for (int w = 0; w < sums.count; ++w) blocks += blocks_of(sums.windows[w], sums.block_columns);
    return blocks / tiling.together * sums.chunks;
  };
  while (cut() > kMostBlocks && (across < tiling.most_across || down < tiling.most_down)) ++(across < tiling.most_across ? across : down);
  return static_cast<int32_t>(down);
}

bool lay_out(Queue& queue, PartialSums& sums, bool by_rows, bool by_columns) {
  sums.blocks = 0;
  for (int w = 0; w < sums.count; ++w) {
    Window& window = sums.windows[w];
    window.block0 = sums.blocks, window.blocks = blocks_of(window, sums.block_columns);
    sums.blocks += window.blocks;
  }
  if (by_rows && (sums.by_rows = queue.scratch_for<float>(sums.blocks * sums.rows * sums.ranks)) == nullptr) return false;
  if (by_columns && (sums.by_columns = queue.scratch_for<float>(sums.chunks * sums.blocks * sums.block_columns * sums.ranks)) == nullptr) return false;
  return true;
}

void add_up(Queue& queue, DType dtype, const PartialSums& from, const PartList& parts, const SkinnyRows* rows, const SkinnyColumns* columns) {
  Sums sums{from, parts, {}, {}, {}, 0, 0};
  if (rows != nullptr) set_rows(sums, *rows);
  if (columns != nullptr) set_columns(sums, *columns);
  const unsigned blocks = sums.row_blocks + sums.column_blocks * static_cast<unsigned>(from.count);
  if (blocks == 0) return;
  const auto shared = sums.rows.spreads == 0 ? 0u : static_cast<unsigned>(kBlockRows * parts.ranks() * static_cast<int64_t>(sizeof(float)));
  if (dtype == DType::bf16) GPU_LAUNCH(add_sums<bf16>, blocks, kThreads, shared, queue.stream(), sums);
  else GPU_LAUNCH(add_sums<f16>, blocks, kThreads, shared, queue.stream(), sums);
}

}  // namespace lowrank::cuda
