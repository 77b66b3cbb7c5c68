// Elementwise kernels: a body is called for every element, or for several neighbours at a time.
#pragma once
#include "pack.cuh"
#include "queue.h"

namespace lowrank::cuda {

constexpr int kMapThreads = 256;

// body.at<kCount>(row, i) handles elements [i, i + kCount) of a row.
template <int kCount, class Body>
__global__ void __launch_bounds__(kMapThreads) map_elements(Body body, int64_t rows, int64_t cols) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x * kCount;
  for (int64_t row = blockIdx.y; row < rows; row += gridDim.y) {
    GPU_NO_UNROLL
    for (int64_t i = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * kCount; i < cols; i += step) body.template at<kCount>(row, i);
  }
}

// What a body is mapped over. Where no operand has spare columns, all elements are one row.
struct MapShape {
  int64_t rows, cols;
};

template <class... Tensors>
MapShape map_shape(const Tensor& t, const Tensors&... others) {
  if (t.contiguous() && (others.contiguous() && ...)) return {1, t.count()};
  return {t.rows(), t.cols()};
}

// A row is cut among blocks; there are enough of them to fill the device eight times, which evens out the last ones.
template <int kCount, class Body>
void map(Queue& queue, const Body& body, const MapShape& shape) {
  if (shape.rows == 0 || shape.cols == 0) return;
  const int64_t packs = shape.cols / kCount, most = 8 * static_cast<int64_t>(queue.multiprocessors());
  const int64_t threads = packs < kMapThreads ? (packs + 31) / 32 * 32 : kMapThreads, blocks = (packs + threads - 1) / threads;
  const dim3 grid(static_cast<unsigned>(blocks < most ? blocks : most), static_cast<unsigned>(shape.rows < 65535 ? shape.rows : 65535));
  GPU_LAUNCH((map_elements<kCount, Body>), grid, static_cast<unsigned>(threads), 0, queue.stream(), body, shape.rows, shape.cols);
}

}  // namespace lowrank::cuda
