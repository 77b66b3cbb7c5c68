#include "masked.h"

#include "../pack.cuh"
#include "../ptx.cuh"

namespace lowrank::cuda {

namespace {

// A warp makes kRows rows by 32 columns with mma; a block, eight warps side by side. What a thread gets of a row's columns is ours to choose,
// since it says itself which column of A stands where in a factor: of 16 rows a lane has eight neighbours of two, which are 16 bytes to
// store and one call of Philox. Factors come from device memory as they are, in f32, and are split into halves in registers: there is no
// shared memory, and as many warps as can be hide what that takes.
constexpr int kThreads = 256, kRows = 16, kWarpColumns = 32, kOwn = 8, kRanks = 16, kTurns = 8;
constexpr int64_t kColumns = kThreads / 32 * kWarpColumns, kBlockRows = kRows * kTurns;

// kWhole: v can be read in twos and A in fours.
bool is_whole(const MaskedLowRank& p) {
  bool even = p.parts.ranks() % 2 == 0;
  for (int i = 0; i < p.parts.count; ++i) even = even && p.parts.at[i].rank % 2 == 0;
  return even && p.columns % 4 == 0 && reinterpret_cast<uintptr_t>(p.a) % 16 == 0 && reinterpret_cast<uintptr_t>(p.v) % 8 == 0;
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
GPU_FN int64_t own_rank(int which) { return lane_id() % 4 * 2 + which % 2 + which / 2 * 8; }

// Rows row and row + 8 of v, as the left factor of mma.
struct LeftPairs {
  uint32_t high[4], low[4];
};
template <class H, bool kWhole>
GPU_FN LeftPairs load_v(const MaskedLowRank& p, int64_t row, int64_t rank0, int64_t rank_end) {
  const int64_t pitch = p.parts.ranks();
  float own[2][4];  // of two rows
  GPU_UNROLL
  for (int below = 0; below < 2; ++below) {
    GPU_UNROLL
    for (int i = 0; i < 4; i += kWhole ? 2 : 1) {
      const int64_t rank = rank0 + own_rank(i), at = row + below * 8;
      const bool given = rank < rank_end && at < p.rows;
      const float* from = p.v + at * pitch + rank;
      if constexpr (kWhole) {
        const float2 two = given ? *reinterpret_cast<const float2*>(from) : make_float2(0.0f, 0.0f);
        own[below][i] = two.x, own[below][i + 1] = two.y;
      } else {
        own[below][i] = given ? *from : 0.0f;
      }
    }
  }
  LeftPairs pairs;
  GPU_UNROLL
  for (int i = 0; i < 4; ++i) {
    const Pair pair = split<H>(own[i % 2][i / 2 * 2], own[i % 2][i / 2 * 2 + 1]);
    pairs.high[i] = pair.high, pairs.low[i] = pair.low;
  }
  return pairs;
}

// Columns of A as the right factors of four mma: in the j-th of them, place l / 4 has column 4 (l / 4) + j. So the places 2 q and 2 q + 1,
// whose sums the q-th lane of a row gets, have columns 8 q to 8 q + 7 in all four.
struct RightPairs {
  Pair at[4][2];  // [mma][ranks, and those eight further on]
};
template <class H, bool kWhole>
GPU_FN RightPairs load_a(const MaskedLowRank& p, int64_t column, int64_t rank0, int64_t rank_end) {
  float own[4][4];  // [rank][column]
  GPU_UNROLL
  for (int i = 0; i < 4; ++i) {
    const int64_t rank = rank0 + own_rank(i);
    const float* from = p.a + rank * p.columns + column;
    if constexpr (kWhole) {
      const float4 four = rank < rank_end && column < p.columns ? *reinterpret_cast<const float4*>(from) : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
      own[i][0] = four.x, own[i][1] = four.y, own[i][2] = four.z, own[i][3] = four.w;
    } else {
      GPU_UNROLL
      for (int j = 0; j < 4; ++j) own[i][j] = rank < rank_end && column + j < p.columns ? from[j] : 0.0f;
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

template <class H, bool kWhole>
GPU_FN void add_ranks(const MaskedLowRank& p, int64_t row, int64_t column, int64_t rank0, int64_t rank_end, Sums& sums) {
  const RightPairs a = load_a<H, kWhole>(p, column, rank0, rank_end);
  const LeftPairs v = load_v<H, kWhole>(p, row, rank0, rank_end);
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
    H* to = static_cast<H*>(p.to) + at * p.pitch + column;
    if (column + kOwn <= p.columns && reinterpret_cast<uintptr_t>(to) % sizeof(Pack<H, kOwn>) == 0) {
      store<kOwn>(to, own);
      continue;
    }
    GPU_UNROLL
    for (int e = 0; e < kOwn; ++e) {
      if (column + e < p.columns) to[e] = from_f32<H>(own.at[e]);
    }
  }
}

template <class H, bool kWhole>
__global__ void __launch_bounds__(kThreads, 2) masked_tiles(GPU_ARGUMENT MaskedLowRank p) {
  const int lane = static_cast<int>(lane_id());
  const int64_t column0 = static_cast<int64_t>(blockIdx.x) * kColumns + warp_id() * kWarpColumns;
  if (column0 >= p.columns) return;
  GPU_NO_UNROLL
  for (int turn = 0; turn < kTurns; ++turn) {
    const int64_t row0 = static_cast<int64_t>(blockIdx.y) * kBlockRows + turn * kRows;
    if (row0 >= p.rows) return;
    const int64_t own_row = row0 + lane / 4, own_column = column0 + lane % 4 * kOwn;
    Sums total = {};
    GPU_NO_UNROLL
    for (int i = 0; i < p.parts.count; ++i) {
      const Part& part = p.parts.at[i];
      if (part.rank == 0) continue;
      Sums sums = {};
      GPU_NO_UNROLL
      for (int64_t rank = part.rank0; rank < part.rank0 + part.rank; rank += kRanks) {
        add_ranks<H, kWhole>(p, own_row, column0 + lane / 4 * 4, rank, part.rank0 + part.rank, sums);
      }
      add_masked(p, current(p.masks[i]), own_row, own_column, sums, total);
    }
    store_rows<H>(p, own_row, own_column, total);
  }
}

template <class H>
void run(Queue& queue, const MaskedLowRank& product) {
  const dim3 grid(static_cast<unsigned>((product.columns + kColumns - 1) / kColumns), static_cast<unsigned>((product.rows + kBlockRows - 1) / kBlockRows));
  if (is_whole(product)) GPU_LAUNCH((masked_tiles<H, true>), grid, kThreads, 0, queue.stream(), product);
  else GPU_LAUNCH((masked_tiles<H, false>), grid, kThreads, 0, queue.stream(), product);
}

}  // namespace

void masked_low_rank(Queue& queue, const MaskedLowRank& product) {
  if (product.rows == 0 || product.columns == 0) return;
  if (product.dtype == DType::bf16) run<bf16>(queue, product);
  else run<f16>(queue, product);
}

}  // namespace lowrank::cuda
