#include "masked.h"

#include "../half.cuh"

namespace lowrank::cuda {

namespace {

// A block makes 32 rows by 256 columns, a thread 4 rows by 8 neighbours, in f32 without tensor cores: it is bound by writing, as long as
// there are few ranks.
constexpr int kRows = 32, kColumns = 256, kRanks = 16, kThreads = 256, kOwnRows = 4, kOwn = 8, kTurnsA = kRanks * kColumns / kThreads;
constexpr int kShared = (kRanks * kColumns + kRows * kRanks) * sizeof(float);

struct alignas(16) Four {
  float at[4];
};

using Sums = float[kOwnRows][kOwn];

// Ranks [rank0, rank0 + kRanks) before rank_end: A as [rank][column], v as [row][rank], zeros beside them.
GPU_FN void bring(const MaskedLowRank& p, float* a, float* v, int64_t row0, int64_t column0, int64_t rank0, int64_t rank_end) {
  GPU_UNROLL
  for (int i = 0; i < kTurnsA; ++i) {
    const int64_t rank = rank0 + i, column = column0 + threadIdx.x;
    a[i * kColumns + threadIdx.x] = rank < rank_end && column < p.columns ? p.a[rank * p.columns + column] : 0.0f;
  }
  for (int i = threadIdx.x; i < kRows * kRanks; i += kThreads) {
    const int64_t row = row0 + i / kRanks, rank = rank0 + i % kRanks;
    v[i] = row < p.rows && rank < rank_end ? p.v[row * p.parts.ranks() + rank] : 0.0f;
  }
}

GPU_FN void add_ranks(const float* a, const float* v, Sums& sums) {
  const int row = static_cast<int>(threadIdx.x) / 32 * kOwnRows, column = static_cast<int>(threadIdx.x) % 32 * kOwn;
  GPU_NO_UNROLL
  for (int rank = 0; rank < kRanks; ++rank) {
    float own[kOwn];
    GPU_UNROLL
    for (int half = 0; half < 2; ++half) {
      const auto four = *reinterpret_cast<const Four*>(a + rank * kColumns + column + half * 4);
      GPU_UNROLL
      for (int e = 0; e < 4; ++e) own[half * 4 + e] = four.at[e];
    }
    GPU_UNROLL
    for (int i = 0; i < kOwnRows; ++i) {
      const float factor = v[(row + i) * kRanks + rank];
      GPU_UNROLL
      for (int e = 0; e < kOwn; ++e) sums[i][e] = fmaf(factor, own[e], sums[i][e]);
    }
  }
}

GPU_FN void add_masked(const MaskedLowRank& p, const Dropout& mask, int64_t row0, int64_t column0, const Sums& sums, Sums& total) {
  GPU_UNROLL
  for (int i = 0; i < kOwnRows; ++i) {
    const uint32_t kept = kept_of_eight(mask, (row0 + i) * p.columns + column0);
    GPU_UNROLL
    for (int e = 0; e < kOwn; ++e) total[i][e] += (kept >> e & 1) != 0 ? sums[i][e] * mask.keep : 0.0f;
  }
}

template <class H>
__global__ void __launch_bounds__(kThreads, 2) masked_tiles(GPU_ARGUMENT MaskedLowRank p) {
  GPU_SHARED(shared);
  auto* a = reinterpret_cast<float*>(shared);
  float* v = a + kRanks * kColumns;
  const int64_t row0 = static_cast<int64_t>(blockIdx.y) * kRows, column0 = static_cast<int64_t>(blockIdx.x) * kColumns;
  const int64_t own_row = row0 + static_cast<int>(threadIdx.x) / 32 * kOwnRows, own_column = column0 + static_cast<int>(threadIdx.x) % 32 * kOwn;
  Sums total = {};
  GPU_NO_UNROLL
  for (int i = 0; i < p.parts.count; ++i) {
    const Part& part = p.parts.at[i];
    Sums sums = {};
    GPU_NO_UNROLL
    for (int64_t rank = part.rank0; rank < part.rank0 + part.rank; rank += kRanks) {
      __syncthreads();  // all are done with the ranks before
      bring(p, a, v, row0, column0, rank, part.rank0 + part.rank);
      __syncthreads();
      add_ranks(a, v, sums);
    }
    if (part.rank > 0) add_masked(p, current(p.masks[i]), own_row, own_column, sums, total);
  }
  GPU_UNROLL
  for (int i = 0; i < kOwnRows; ++i) {
    GPU_UNROLL
    for (int e = 0; e < kOwn; ++e) {
      if (own_row + i < p.rows && own_column + e < p.columns) static_cast<H*>(p.to)[(own_row + i) * p.pitch + own_column + e] = from_f32<H>(total[i][e]);
    }
  }
}

}  // namespace

void masked_low_rank(Queue& queue, const MaskedLowRank& product) {
  if (product.rows == 0 || product.columns == 0) return;
  const dim3 grid(static_cast<unsigned>((product.columns + kColumns - 1) / kColumns), static_cast<unsigned>((product.rows + kRows - 1) / kRows));
  if (product.dtype == DType::bf16) GPU_LAUNCH(masked_tiles<bf16>, grid, kThreads, kShared, queue.stream(), product);
  else GPU_LAUNCH(masked_tiles<f16>, grid, kThreads, kShared, queue.stream(), product);
}

}  // namespace lowrank::cuda
