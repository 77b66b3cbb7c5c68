// Attention's products without tensor cores, for f32 activations and for 16-bit ones whose rows aren't aligned: a block of 256 threads
// makes 64 x 64 tiles, each thread 4 x 4 of one, from slabs in shared memory. Any head size. Kernels ask for one block a multiprocessor at
// least, which leaves ptxas all 255 registers: left to itself it wants two and spills.
#pragma once
#include "attention_view.cuh"

namespace lowrank::cuda {

constexpr int kTile = 64, kTileThreads = 256, kTilePitch = kTile + 4, kSlab = 32;
// Slices of kTile columns that a block sums in 16 bits: rows that aren't aligned are rare, so one shape serves every head size.
constexpr int kFallbackSlices = 2;
constexpr int kSlabFloats = kSlab * kTilePitch, kScoreFloats = kTile * kTilePitch;

struct alignas(16) Four {
  float at[4];
};

using Sums = float[4][4];

// Where a thread's 4 x 4 lie in the tile.
GPU_FN int tile_row() { return static_cast<int>(threadIdx.x) / 16 * 4; }
GPU_FN int tile_column() { return static_cast<int>(threadIdx.x) % 16 * 4; }

// sums += left^T right over `deep` rows of both, [deep][kTilePitch].
GPU_FN void multiply_slabs(const float* left, const float* right, int deep, Sums& sums) {
  left += tile_row();
  right += tile_column();
  for (int d = 0; d < deep; ++d) {
    const Four a = *reinterpret_cast<const Four*>(left + d * kTilePitch), b = *reinterpret_cast<const Four*>(right + d * kTilePitch);
    GPU_UNROLL
    for (int i = 0; i < 4; ++i) {
      GPU_UNROLL
      for (int j = 0; j < 4; ++j) sums[i][j] = fmaf(a.at[i], b.at[j], sums[i][j]);
    }
  }
}

// to[d][row] = columns [column, column + kSlab) of kTile rows; row(i) is nullptr where there is none.
template <class Row>
GPU_FN void load_turned(float* to, const Row& row, int column, int columns) {
  for (int i = static_cast<int>(threadIdx.x); i < kTile * kSlab; i += kTileThreads) {
    const int r = i / kSlab, d = i % kSlab;
    const auto* from = row(r);
    to[d * kTilePitch + r] = from != nullptr && column + d < columns ? to_f32(from[column + d]) : 0.0f;
  }
}

// to[row][c] = columns [column, column + kTile) of kSlab rows.
template <class Row>
GPU_FN void load_straight(float* to, const Row& row, int column, int columns) {
  for (int i = static_cast<int>(threadIdx.x); i < kSlab * kTile; i += kTileThreads) {
    const int r = i / kTile, c = i % kTile;
    const auto* from = row(r);
    to[r * kTilePitch + c] = from != nullptr && column + c < columns ? to_f32(from[column + c]) : 0.0f;
  }
}

// sums = (64 rows of left) (64 rows of right)^T, both `size` long.
template <class Left, class Right>
GPU_FN void multiply_rows(const Left& left, const Right& right, int size, float* slabs, Sums& sums) {
  GPU_UNROLL
  for (int i = 0; i < 4; ++i) {
    GPU_UNROLL
    for (int j = 0; j < 4; ++j) sums[i][j] = 0.0f;
  }
  for (int d = 0; d < size; d += kSlab) {
    load_turned(slabs, left, d, size);
    load_turned(slabs + kSlabFloats, right, d, size);
    __syncthreads();
    multiply_slabs(slabs, slabs + kSlabFloats, size - d < kSlab ? size - d : kSlab, sums);
    __syncthreads();
  }
}

// totals[slice] += weights^T (deep rows), for columns from `column` on. weights: [deep <= 64][kTilePitch].
template <int kSlices, class Row>
GPU_FN void add_weighted_rows(const float* weights, const Row& row, int deep, int column, int columns, float* slab, Sums (&totals)[kSlices]) {
  GPU_UNROLL
  for (int slice = 0; slice < kSlices; ++slice) {
    for (int d = 0; d < deep; d += kSlab) {
      load_straight(slab, [&](int i) { return row(d + i); }, column + slice * kTile, columns);
      __syncthreads();
      multiply_slabs(weights + d * kTilePitch, slab, deep - d < kSlab ? deep - d : kSlab, totals[slice]);
      __syncthreads();
    }
  }
}

// to[column][row]: the other operand's rows come first, as multiply_slabs wants it.
GPU_FN void store_turned(float* to, const Sums& sums) {
  GPU_UNROLL
  for (int j = 0; j < 4; ++j) {
    const Four four{{sums[0][j], sums[1][j], sums[2][j], sums[3][j]}};
    *reinterpret_cast<Four*>(to + (tile_column() + j) * kTilePitch + tile_row()) = four;
  }
}

// Row i of a thread's share, times `factor`; `to` is the row's first column, `column` that of the first slice.
template <int kSlices, class T>
GPU_FN void store_row(T* to, const Sums (&totals)[kSlices], int i, int column, int columns, float factor) {
  GPU_UNROLL
  for (int slice = 0; slice < kSlices; ++slice) {
    GPU_UNROLL
    for (int j = 0; j < 4; ++j) {
      const int at = column + slice * kTile + tile_column() + j;
      if (at < columns) to[at] = from_f32<T>(totals[slice][i][j] * factor);
    }
  }
}

template <int kSlices>
GPU_FN void clear(Sums (&totals)[kSlices]) {
  GPU_UNROLL
  for (int slice = 0; slice < kSlices; ++slice) {
    GPU_UNROLL
    for (int i = 0; i < 4; ++i) {
      GPU_UNROLL
      for (int j = 0; j < 4; ++j) totals[slice][i][j] = 0.0f;
    }
  }
}

}  // namespace lowrank::cuda
