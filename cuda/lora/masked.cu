#include "masked.h"

#include "../pack.cuh"
#include "../ptx.cuh"

namespace lowrank::cuda {

namespace {

// A warp makes kRows rows by 32 columns with mma; a block, eight warps side by side. What a thread gets of a row's columns is ours to choose,
// since it says itself which column of A stands where in a factor: of 16 rows a lane has eight neighbours of two, which are 16 bytes to
// store and one call of Philox. v comes in halves, as dA has it; A comes as it is, in f32, and is split into halves in registers, once for
// all rows where there is one part of 16 ranks at most. There is no shared memory, and as many warps as can be hide what that takes.
constexpr int kThreads = 256, kRows = 16, kWarpColumns = 32, kOwn = 8, kRanks = 16, kTurns = 8;
constexpr int64_t kColumns = kThreads / 32 * kWarpColumns, kBlockRows = kRows * kTurns;

// How A is read: number by number, in fours, or in fours and once for all rows.
enum class Reads { numbers, fours, fours_once };

Reads reads_of(const MaskedLowRank& p) {
  if (p.columns % 4 != 0 || reinterpret_cast<uintptr_t>(p.a) % 16 != 0) return Reads::numbers;
  return p.parts.count == 1 && p.parts.ranks() <= kRanks ? Reads::fours_once : Reads::fours;
}

// Numbers of f32 as pairs of 16 bits: what rounds to them and what that loses.
struct Pair {
  uint32_t high, low;
};
template <class H>
GPU_FN Pair split(float x, float y) {
  const uint32_t high = ptx::pack_halves<H>(x, y);
  const float x_high = to_f32(H{static_cast<uint16_t>(high)}), y_high = to_f32(H{static_cast<uint16_t>(high >> 16)});
  return {high, ptx::pack_halves<H>(x - x_high, y - y_high)};
}

// Of a tile of 16 ranks, lane l has those at 2 (l % 4), 2 (l % 4) + 1 and eight further on.
GPU_FN int32_t own_rank(int which) { return static_cast<int32_t>(lane_id()) % 4 * 2 + which % 2 + which / 2 * 8; }

// Rows row and row + 8 of v, ranks of a part from `rank` on, as the left factor of mma.
struct LeftPairs {
  uint32_t high[4], low[4];
};
GPU_FN LeftPairs load_v(const MaskedLowRank& p, int64_t row, const Part& part, int32_t rank) {
  const int64_t padded = p.parts.padded();
  LeftPairs pairs;
  GPU_UNROLL
  for (int i = 0; i < 4; ++i) {
    const int64_t at = row + i % 2 * 8;
    const int32_t own = rank + own_rank(i / 2 * 2);
    const bool given = at < p.rows && own < part.padded();
    const auto* from = static_cast<const uint16_t*>(p.v) + at * 2 * padded + part.padded0 + own;
    pairs.high[i] = given ? *reinterpret_cast<const uint32_t*>(from) : 0;
    pairs.low[i] = given ? *reinterpret_cast<const uint32_t*>(from + padded) : 0;
  }
  return pairs;
}

// Columns of A as the right factors of four mma: in the j-th of them, place l / 4 has column 4 (l / 4) + j. So the places 2 q and 2 q + 1,
// whose sums the q-th lane of a row gets, have columns 8 q to 8 q + 7 in all four.
struct RightPairs {
  Pair at[4][2];  // [mma][ranks, and those eight further on]
};
template <class H, Reads kReads>
GPU_FN RightPairs load_a(const MaskedLowRank& p, int64_t column, const Part& part, int32_t rank) {
  float own[4][4];  // [rank][column]
  GPU_UNROLL
  for (int i = 0; i < 4; ++i) {
    const bool given = rank + own_rank(i) < part.rank;
    const float* from = p.a + (part.rank0 + rank + own_rank(i)) * p.columns + column;
    if constexpr (kReads != Reads::numbers) {
      const float4 four = given && column < p.columns ? *reinterpret_cast<const float4*>(from) : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
      own[i][0] = four.x, own[i][1] = four.y, own[i][2] = four.z, own[i][3] = four.w;
    } else {
      GPU_UNROLL
      for (int j = 0; j < 4; ++j) own[i][j] = given && column + j < p.columns ? from[j] : 0.0f;
    }
  }
  RightPairs pairs;
  GPU_UNROLL
  for (int j = 0; j < 4; ++j) {
    GPU_UNROLL
    for (int i = 0; i < 2; ++i) pairs.at[j][i] = split<H>(own[2 * i][j], own[2 * i + 1][j]);
  }
  return pairs;
}

// Of each mma: d[0] and d[1] are of the upper row.
using Sums = float[4][4];

template <class H>
GPU_FN void add_ranks(const LeftPairs& v, const RightPairs& a, Sums& sums) {
  __syncwarp();  // masks and stores part the lanes, and mma wants the warp together
  GPU_UNROLL
  for (int j = 0; j < 4; ++j) {
    ptx::mma_m16n8k16<H>(sums[j], v.low, a.at[j][0].high, a.at[j][1].high);
    ptx::mma_m16n8k16<H>(sums[j], v.high, a.at[j][0].low, a.at[j][1].low);
    ptx::mma_m16n8k16<H>(sums[j], v.high, a.at[j][0].high, a.at[j][1].high);
  }
}

// Column e of a lane's eight in one of its two rows.
GPU_FN float& own_sum(Sums& sums, int below, int e) { return sums[e % 4][2 * below + e / 4]; }

// total += what stays, with its factor.
GPU_FN void add_masked(const MaskedLowRank& p, const Dropout& mask, int64_t row, int64_t column, Sums& sums, Sums& total) {
  GPU_UNROLL
  for (int below = 0; below < 2; ++below) {
    const PhiloxWords words = philox_of_eight(mask, (row + below * 8) * p.columns + column);
    GPU_UNROLL
    for (int e = 0; e < kOwn; ++e) {
      if (is_kept(mask, words, e)) own_sum(total, below, e) = fmaf(mask.keep, own_sum(sums, below, e), own_sum(total, below, e));
    }
  }
}

template <class H>
GPU_FN void store_rows(const MaskedLowRank& p, int64_t row, int64_t column, Sums& total) {
  GPU_UNROLL
  for (int below = 0; below < 2; ++below) {
    const int64_t at = row + below * 8;
    if (at >= p.rows || column >= p.columns) continue;
    Floats<kOwn> own;
    GPU_UNROLL
    for (int e = 0; e < kOwn; ++e) own.at[e] = own_sum(total, below, e);
    store_first(static_cast<H*>(p.to) + at * p.pitch + column, own, p.columns - column);
  }
}

template <class H, Reads kReads>
__global__ void __launch_bounds__(kThreads, 2) masked_tiles(GPU_ARGUMENT MaskedLowRank p) {
  const int lane = static_cast<int>(lane_id());
  const int64_t column0 = static_cast<int64_t>(blockIdx.x) * kColumns + warp_id() * kWarpColumns;
  if (column0 >= p.columns) return;
  const int64_t own_column = column0 + lane % 4 * kOwn, a_column = column0 + lane / 4 * 4;
  RightPairs only{};
  if constexpr (kReads == Reads::fours_once) only = load_a<H, kReads>(p, a_column, p.parts.at[0], 0);
  GPU_NO_UNROLL
  for (int turn = 0; turn < kTurns; ++turn) {
    const int64_t row0 = static_cast<int64_t>(blockIdx.y) * kBlockRows + turn * kRows, own_row = row0 + lane / 4;
    if (row0 >= p.rows) return;
    Sums total = {};
    if constexpr (kReads == Reads::fours_once) {
      Sums sums = {};
      add_ranks<H>(load_v(p, own_row, p.parts.at[0], 0), only, sums);
      add_masked(p, current(p.masks[0]), own_row, own_column, sums, total);
    } else {
      GPU_NO_UNROLL
      for (int i = 0; i < p.parts.count; ++i) {
        const Part& part = p.parts.at[i];
        if (part.rank == 0) continue;
        Sums sums = {};
        GPU_NO_UNROLL
        for (int32_t rank = 0; rank < part.rank; rank += kRanks) add_ranks<H>(load_v(p, own_row, part, rank), load_a<H, kReads>(p, a_column, part, rank), sums);
        add_masked(p, current(p.masks[i]), own_row, own_column, sums, total);
      }
    }
    store_rows<H>(p, own_row, own_column, total);
  }
}

template <class H>
void run(Queue& queue, const MaskedLowRank& product) {
  const dim3 grid(static_cast<unsigned>((product.columns + kColumns - 1) / kColumns), static_cast<unsigned>((product.rows + kBlockRows - 1) / kBlockRows));
  switch (reads_of(product)) {
    case Reads::numbers: return GPU_LAUNCH((masked_tiles<H, Reads::numbers>), grid, kThreads, 0, queue.stream(), product);
    case Reads::fours: return GPU_LAUNCH((masked_tiles<H, Reads::fours>), grid, kThreads, 0, queue.stream(), product);
    case Reads::fours_once: return GPU_LAUNCH((masked_tiles<H, Reads::fours_once>), grid, kThreads, 0, queue.stream(), product);
  }
}

}  // namespace

void masked_low_rank(Queue& queue, const MaskedLowRank& product) {
  if (product.rows == 0 || product.columns == 0) return;
  if (product.dtype == DType::bf16) run<bf16>(queue, product);
  else run<f16>(queue, product);
}

}  // namespace lowrank::cuda
