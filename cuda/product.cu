#include "product.h"

#include "half.cuh"

namespace lowrank::cuda {

namespace {

// A block makes kTile x kTile of C, a thread 4 x 4 of these, from slabs of kDepth.
constexpr int kTile = 64, kDepth = 16, kThreads = 256, kPitch = kTile + 4;
constexpr int kShared = 2 * kDepth * kPitch * sizeof(float);
constexpr int64_t kChunk = 2048;

struct alignas(16) Four {
  float at[4];
};

GPU_FN float element(const Matrix& matrix, int64_t i, int64_t j) {
  const int64_t at = i * matrix.row + j * matrix.column;
  if (matrix.dtype == DType::f32) return static_cast<const float*>(matrix.data)[at];
  if (matrix.dtype == DType::f16) return to_f32(static_cast<const f16*>(matrix.data)[at]);
  return to_f32(static_cast<const bf16*>(matrix.data)[at]);
}

// Part of a matrix that goes into a tile: `wide` runs along the tile, `deep` along k.
struct Slab {
  const Matrix* matrix;
  int64_t wide0, deep0, wide_end, deep_end;
  bool deep_is_row;  // the right factor: element (deep, wide)
};

GPU_FN float slab_element(const Slab& slab, const Term& term, int64_t wide, int64_t deep) {
  if (wide >= slab.wide_end || deep >= slab.deep_end) return 0.0f;
  const int64_t i = slab.deep_is_row ? deep : wide, j = slab.deep_is_row ? wide : deep;
  const float value = element(*slab.matrix, i, j);
  const bool masked = term.mask_on == (slab.deep_is_row ? MaskOn::right : MaskOn::left);
  return masked ? value * dropout_factor(current(term.mask), i * term.mask_pitch + j) : value;
}

// tile[deep][wide]. Neighbouring threads read neighbouring addresses, whichever way the matrix lies.
GPU_FN void fill_tile(const Slab& slab, const Term& term, float* tile) {
  const int64_t along_deep = slab.deep_is_row ? slab.matrix->row : slab.matrix->column;
  const bool deep_first = along_deep == 1;
  GPU_NO_UNROLL  // with a mask, four turns at once need more registers than there are
  for (int i = threadIdx.x; i < kTile * kDepth; i += kThreads) {
    const int wide = deep_first ? i / kDepth : i % kTile, deep = deep_first ? i % kDepth : i / kTile;
    tile[deep * kPitch + wide] = slab_element(slab, term, slab.wide0 + wide, slab.deep0 + deep);
  }
}

GPU_FN void multiply_slab(const float* left, const float* right, float (&sums)[4][4]) {
  const int row = threadIdx.x / 16 * 4, column = threadIdx.x % 16 * 4;
  GPU_UNROLL
  for (int deep = 0; deep < kDepth; ++deep) {
    const Four a = *reinterpret_cast<const Four*>(left + deep * kPitch + row), b = *reinterpret_cast<const Four*>(right + deep * kPitch + column);
    GPU_UNROLL
    for (int i = 0; i < 4; ++i) {
      GPU_UNROLL
      for (int j = 0; j < 4; ++j) sums[i][j] = fmaf(a.at[i], b.at[j], sums[i][j]);
    }
  }
}

// One term's share of the block's tile, over [k_begin, k_end).
GPU_FN void add_term(const Product& p, const Term& term, int64_t k_begin, int64_t k_end, float* shared, float (&total)[4][4]) {
  float* left = shared;
  float* right = shared + kDepth * kPitch;
  const int64_t row0 = static_cast<int64_t>(blockIdx.x) * kTile, column0 = static_cast<int64_t>(blockIdx.y) * kTile;
  float sums[4][4] = {};
  for (int64_t k = k_begin; k < k_end; k += kDepth) {
    fill_tile({&term.left, row0, k, p.m, k_end, false}, term, left);
    fill_tile({&term.right, column0, k, p.n, k_end, true}, term, right);
    __syncthreads();
    multiply_slab(left, right, sums);
    __syncthreads();
  }
  const int64_t row = row0 + threadIdx.x / 16 * 4, column = column0 + threadIdx.x % 16 * 4;
  GPU_UNROLL
  for (int i = 0; i < 4; ++i) {
    GPU_UNROLL
    for (int j = 0; j < 4; ++j) {
      const bool masked = term.mask_on == MaskOn::result;
      total[i][j] += masked ? sums[i][j] * dropout_factor(current(term.mask), (row + i) * term.mask_pitch + column + j) : sums[i][j];
    }
  }
}

GPU_FN void write_element(const Product& p, int64_t row, int64_t column, float sum) {
  const int64_t at = row * p.c_row + column * p.c_column;
  float value = sum * p.scale;
  if (p.bias != nullptr) value += p.bias[column];
  if (p.carry != nullptr) value += p.carry[at];
  if (p.start == Start::add) value += p.c[at];
  p.c[at] = value;
}

// With `partial` [chunks, m, n]: the sums of one chunk of k, blockIdx.z, and no more.
// Two blocks a multiprocessor: says how many registers there are. Left to itself ptxas 13.0 takes 64 for sm_120, and spills.
__global__ void __launch_bounds__(kThreads, 2) multiply_tiles(GPU_ARGUMENT Product p, float* partial) {
  GPU_SHARED(shared);
  float total[4][4] = {};
  for (int s = 0; s < p.count; ++s) {
    const Term& term = p.terms[s];
    const int64_t begin = partial != nullptr ? blockIdx.z * kChunk : 0;
    const int64_t end = partial != nullptr && begin + kChunk < term.k ? begin + kChunk : term.k;
    add_term(p, term, begin, end, reinterpret_cast<float*>(shared), total);
  }
  const int64_t row0 = static_cast<int64_t>(blockIdx.x) * kTile + threadIdx.x / 16 * 4, column0 = static_cast<int64_t>(blockIdx.y) * kTile + threadIdx.x % 16 * 4;
  GPU_UNROLL
  for (int i = 0; i < 4; ++i) {
    GPU_UNROLL
    for (int j = 0; j < 4; ++j) {
      const int64_t row = row0 + i, column = column0 + j;
      if (row >= p.m || column >= p.n) continue;
      if (partial != nullptr) partial[(blockIdx.z * p.m + row) * p.n + column] = total[i][j];
      else write_element(p, row, column, total[i][j]);
    }
  }
}

__global__ void __launch_bounds__(kThreads) add_chunks(GPU_ARGUMENT Product p, const float* partial, int64_t chunks) {
  const int64_t at = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (at >= p.m * p.n) return;
  float sum = 0;
  for (int64_t chunk = 0; chunk < chunks; ++chunk) sum += partial[chunk * p.m * p.n + at];
  write_element(p, at / p.n, at % p.n, sum);
}

dim3 tiles_of(const Product& p, int64_t chunks) {
  return dim3(static_cast<unsigned>((p.m + kTile - 1) / kTile), static_cast<unsigned>((p.n + kTile - 1) / kTile), static_cast<unsigned>(chunks));
}

}  // namespace

void multiply(Queue& queue, const Product& product) {
  if (product.m == 0 || product.n == 0) return;
  float* no_partial = nullptr;
  GPU_LAUNCH(multiply_tiles, tiles_of(product, 1), kThreads, kShared, queue.stream(), product, no_partial);
}

void multiply_long(Queue& queue, const Product& product) {
  const int64_t chunks = (product.terms[0].k + kChunk - 1) / kChunk, count = product.m * product.n;
  if (chunks <= 1 || count == 0) return multiply(queue, product);
  auto* partial = queue.scratch_for<float>(chunks * count);
  if (partial == nullptr) return;
  GPU_LAUNCH(multiply_tiles, tiles_of(product, chunks), kThreads, kShared, queue.stream(), product, partial);
  GPU_LAUNCH(add_chunks, static_cast<unsigned>((count + kThreads - 1) / kThreads), kThreads, 0, queue.stream(), product, partial, chunks);
}

}  // namespace lowrank::cuda
