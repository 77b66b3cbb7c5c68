// Kernels that give a row to a block: how many threads, and sums over a block that come out the same in every thread and every run.
#pragma once
#include "pack.cuh"

namespace lowrank::cuda {

constexpr int kMostRowThreads = 512;
// Shared memory of one sum: a number for each warp.
constexpr int kWarpSums = kMostRowThreads / 32;

// Threads for rows of `cols` elements, kCount at a time: each has about four turns.
inline unsigned row_threads(int64_t cols, int64_t count) {
  const int64_t wanted = (cols / count / 4 + 31) / 32 * 32;
  return static_cast<unsigned>(wanted < 32 ? 32 : wanted > kMostRowThreads ? kMostRowThreads : wanted);
}

template <class T>
GPU_FN T warp_sum(T value) {
  for (int lanes = 16; lanes > 0; lanes /= 2) value += __shfl_xor_sync(kAllLanes, value, lanes);
  return value;
}

// The sum of `value` over the block, in every thread. `sums` [kWarpSums] is not used again before the next barrier.
template <class T>
GPU_FN T block_sum(T value, T* sums) {
  value = warp_sum(value);
  if (blockDim.x == 32) return value;
  if (lane_id() == 0) sums[warp_id()] = value;
  __syncthreads();
  T total = 0;
  for (unsigned warp = 0; warp < blockDim.x / 32; ++warp) total += sums[warp];
  return total;
}

// body(i) for the packs of a row: i = 0, kCount, 2 kCount, ... spread over the block's threads.
template <int kCount, class Body>
GPU_FN void for_packs(int64_t cols, const Body& body) {
  for (int64_t i = static_cast<int64_t>(threadIdx.x) * kCount; i < cols; i += static_cast<int64_t>(blockDim.x) * kCount) body(i);
}

}  // namespace lowrank::cuda
