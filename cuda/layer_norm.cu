#include "dtypes.cuh"
#include "kernels.h"
#include "rows.cuh"

namespace lowrank::cuda {

namespace {

template <class T>
struct Norm {
  T* y;         // [N, C]
  float* mean;  // [N]
  float* r;     // [N]
  const T* x;   // [N, C]
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
  const T* x = p.x + row * p.cols;
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
    store<kCount>(p.y + row * p.cols + i, v);
  });
  if (threadIdx.x != 0) return;
  p.mean[row] = mean;
  p.r[row] = r;
}

template <class T>
struct NormGrad {
  T* dx;           // [N, C]
  const T* dy;     // [N, C]
  const T* x;      // [N, C]
  const float* w;  // [C]
  const float* mean;
  const float* r;
  const T* carry;  // [N, C] or nullptr
  int64_t cols;
};

template <int kCount, class T>
__global__ void __launch_bounds__(kMostRowThreads) layer_norm_rows_grad(NormGrad<T> p) {
  GPU_SHARED(shared);
  auto* sums = reinterpret_cast<float*>(shared);  // [2][kWarpSums]
  const int64_t row = blockIdx.x, at = row * p.cols;
  const float mean = p.mean[row], r = p.r[row];
  float total = 0, dot = 0;  // of g, of g (x - mean)
  for_packs<kCount>(p.cols, [&](int64_t i) {
    const Floats<kCount> x = load<kCount>(p.x + at + i), w = load<kCount>(p.w + i), dy = load<kCount>(p.dy + at + i);
    for (int j = 0; j < kCount; ++j) {
      const float g = dy.at[j] * w.at[j];
      total += g;
      dot += g * (x.at[j] - mean);
    }
  });
  const float shift = block_sum(total, sums) / static_cast<float>(p.cols);
  const float pull = block_sum(dot, sums + kWarpSums) * r * r / static_cast<float>(p.cols);
  for_packs<kCount>(p.cols, [&](int64_t i) {
    const Floats<kCount> x = load<kCount>(p.x + at + i), w = load<kCount>(p.w + i), dy = load<kCount>(p.dy + at + i);
    Floats<kCount> result;
    for (int j = 0; j < kCount; ++j) result.at[j] = (dy.at[j] * w.at[j] - shift - (x.at[j] - mean) * pull) * r;
    if (p.carry != nullptr) {
      const Floats<kCount> given = load<kCount>(p.carry + at + i);
      for (int j = 0; j < kCount; ++j) result.at[j] += given.at[j];
    }
    store<kCount>(p.dx + at + i, result);
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
    const Norm<T> p{op.y.as<T>(), op.mean.f32(), op.r.f32(), op.x.as<T>(), op.w.f32(), op.b.f32(), cols, op.eps};
    if (fours(cols, p.y, p.x, p.w, p.b)) {
      GPU_LAUNCH((layer_norm_rows<4, T>), rows, row_threads(cols, 4), kShared, queue.stream(), p);
    } else {
      GPU_LAUNCH((layer_norm_rows<1, T>), rows, row_threads(cols, 1), kShared, queue.stream(), p);
    }
  });
}

void layer_norm_grad(const LayerNormGrad& op, Queue& queue) {
  const auto rows = static_cast<unsigned>(op.x.rows());
  const int64_t cols = op.x.cols();
  if (rows == 0) return;
  with_activation(op.x.dtype, [&](auto stored) {
    using T = typename decltype(stored)::Type;
    const T* carry = op.carry.given() ? op.carry.as<T>() : nullptr;
    const NormGrad<T> p{op.dx.as<T>(), op.dy.as<T>(), op.x.as<T>(), op.w.f32(), op.mean.f32(), op.r.f32(), carry, cols};
    if (fours(cols, p.dx, p.dy, p.x, p.w, p.carry)) {
      GPU_LAUNCH((layer_norm_rows_grad<4, T>), rows, row_threads(cols, 4), kShared, queue.stream(), p);
    } else {
      GPU_LAUNCH((layer_norm_rows_grad<1, T>), rows, row_threads(cols, 1), kShared, queue.stream(), p);
    }
  });
}

}  // namespace lowrank::cuda
