// Elementwise kernels: a body is called for every element, or for four neighbours at a time.
#pragma once
#include "pack.cuh"
#include "queue.h"

namespace lowrank::cuda {

constexpr int kMapThreads = 256;

// body.at<kCount>(i) handles elements [i, i + kCount).
template <int kCount, class Body>
__global__ void __launch_bounds__(kMapThreads) map_elements(Body body, int64_t count) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * kMapThreads * kCount;
  for (int64_t i = (static_cast<int64_t>(blockIdx.x) * kMapThreads + threadIdx.x) * kCount; i < count; i += step) body.template at<kCount>(i);
}

// Enough blocks to fill the device eight times, which evens out the last ones.
inline unsigned map_blocks(const Queue& queue, int64_t threads) {
  const int64_t wanted = (threads + kMapThreads - 1) / kMapThreads, most = 8 * static_cast<int64_t>(queue.multiprocessors());
  return static_cast<unsigned>(wanted < most ? wanted : most);
}

template <class Body>
void map(Queue& queue, const Body& body, int64_t count, bool by_fours) {
  if (count == 0) return;
  if (by_fours) {
    GPU_LAUNCH((map_elements<4, Body>), map_blocks(queue, count / 4), kMapThreads, 0, queue.stream(), body, count);
  } else {
    GPU_LAUNCH((map_elements<1, Body>), map_blocks(queue, count), kMapThreads, 0, queue.stream(), body, count);
  }
}

}  // namespace lowrank::cuda
