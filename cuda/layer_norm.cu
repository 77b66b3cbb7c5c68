#include "dtypes.cuh"
#include "kernels.h"
#include "rows.cuh"

namespace lowrank::cuda {

namespace {

template <class T>
struct Norm {
  Rows<T> y;        // [N, C]
  float* mean;      // [N]
  float* r;         // [N]
  Rows<const T> x;  // [N, C]
  const float* w;
  const float* b;
  int64_t cols;
  float eps;
};

// The variance is taken from the centred row: mean(x^2) - mean^2 would lose the digits in which the two agree.
template <int kCount, class T>
__global__ void __launch_bounds__(kMostRowThreads) layer_norm_rows(Norm<T> p) {
  GPU_SHARED(shared);
  auto* sums = reinterpret_cast<float*>(shared);  // [2][kWarpSums]
  const int64_t row = blockIdx.x;
  const T* x = p.x.at(row);
  T* y = p.y.at(row);
  float total = 0, squares = 0;
  for_packs<kCount>(p.cols, [&](int64_t i) {
    const Floats<kCount> v = load<kCount>(x + i);
    for (int j = 0; j < kCount; ++j) total += v.at[j];
  });
  const float mean = block_sum(total, sums) / static_cast<float>(p.cols);
  for_packs<kCount>(p.cols, [&](int64_t i) {
    const Floats<kCount> v = load<kCount>(x + i);
    for (int j = 0; j < kCount; ++j) squares += (v.at[j] - mean) * (v.at[j] - mean);
  });
  const float r = 1.0f / sqrtf(block_sum(squares, sums + kWarpSums) / static_cast<float>(p.cols) + p.eps);
  for_packs<kCount>(p.cols, [&](int64_t i) {
    Floats<kCount> v = load<kCount>(x + i);
    const Floats<kCount> w = load<kCount>(p.w + i), b = load<kCount>(p.b + i);
    for (int j = 0; j < kCount; ++j) v.at[j] = (v.at[j] - mean) * r * w.at[j] + b.at[j];
    store<kCount>(y + i, v);
  });
  if (threadIdx.x != 0) return;
  p.mean[row] = mean;
  p.r[row] = r;
}

template <class T>
struct NormGrad {
  Rows<T> dx;           // [N, C]
  Rows<const T> dy;     // [N, C]
  Rows<const T> x;      // [N, C]
  const float* w;       // [C]
  const float* mean;    // [N]
  const float* r;       // [N]
  Rows<const T> carry;  // [N, C] or not given
  int64_t cols;
};

template <int kCount, class T>
__global__ void __launch_bounds__(kMostRowThreads) layer_norm_rows_grad(NormGrad<T> p) {
  GPU_SHARED(shared);
  auto* sums = reinterpret_cast<float*>(shared);  // [2][kWarpSums]
  const int64_t row = blockIdx.x;
  const T* dy_row = p.dy.at(row);
  const T* x_row = p.x.at(row);
  const T* carry = p.carry.at(row);
  T* dx = p.dx.at(row);
  const float mean = p.mean[row], r = p.r[row];
  float total = 0, dot = 0;  // of g, of g (x - mean)
  for_packs<kCount>(p.cols, [&](int64_t i) {
    const Floats<kCount> x = load<kCount>(x_row + i), w = load<kCount>(p.w + i), dy = load<kCount>(dy_row + i);
    for (int j = 0; j < kCount; ++j) {
      const float g = dy.at[j] * w.at[j];
      total += g;
      dot += g * (x.at[j] - mean);
    }
  });
  const float shift = block_sum(total, sums) / static_cast<float>(p.cols);
  const float pull = block_sum(dot, sums + kWarpSums) * r * r / static_cast<float>(p.cols);
  for_packs<kCount>(p.cols, [&](int64_t i) {
    const Floats<kCount> x = load<kCount>(x_row + i), w = load<kCount>(p.w + i), dy = load<kCount>(dy_row + i);
    Floats<kCount> result;
    for (int j = 0; j < kCount; ++j) result.at[j] = (dy.at[j] * w.at[j] - shift - (x.at[j] - mean) * pull) * r;
    if (carry != nullptr) {
      const Floats<kCount> given = load<kCount>(carry + i);
      for (int j = 0; j < kCount; ++j) result.at[j] += given.at[j];
    }
    store<kCount>(dx + i, result);
  });
}

constexpr int kShared = 2 * kWarpSums * sizeof(float);

}  // namespace

void layer_norm(const LayerNorm& op, Queue& queue) {
  const auto rows = static_cast<unsigned>(op.x.rows());
  const int64_t cols = op.x.cols();
  if (rows == 0) return;
  with_activation(op.x.dtype, [&](auto stored) {
    using T = typename decltype(stored)::Type;
    const Norm<T> p{rows_of<T>(op.y), op.mean.f32(), op.r.f32(), rows_of<const T>(op.x), op.w.f32(), op.b.f32(), cols, op.eps};
    by_packs<kPack<T>>(cols, [&](auto count) {
      constexpr int kCount = decltype(count)::value;
      GPU_LAUNCH((layer_norm_rows<kCount, T>), rows, row_threads(cols, kCount), kShared, queue.stream(), p);
    }, p.y, p.x, p.w, p.b);
  });
}

void layer_norm_grad(const LayerNormGrad& op, Queue& queue) {
  const auto rows = static_cast<unsigned>(op.x.rows());
  const int64_t cols = op.x.cols();
  if (rows == 0) return;
  with_activation(op.x.dtype, [&](auto stored) {
    using T = typename decltype(stored)::Type;
    const NormGrad<T> p{rows_of<T>(op.dx), rows_of<const T>(op.dy), rows_of<const T>(op.x), op.w.f32(), op.mean.f32(), op.r.f32(), rows_of<const T>(op.carry), cols};
    by_packs<kPack<T>>(cols, [&](auto count) {
      constexpr int kCount = decltype(count)::value;
      GPU_LAUNCH((layer_norm_rows_grad<kCount, T>), rows, row_threads(cols, kCount), kShared, queue.stream(), p);
    }, p.dx, p.dy, p.x, p.w, p.carry);
  });
}

}  // namespace lowrank::cuda
