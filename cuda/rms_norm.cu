#include "dtypes.cuh"
#include "kernels.h"
#include "rms_row.cuh"

namespace lowrank::cuda {

namespace {

template <class T>
struct Norm {
  Rows<T> y;        // [N, C]
  float* r;         // [N]
  Rows<const T> x;  // [N, C]
  const float* w;
  int64_t cols;
  float eps;
};

template <int kCount, class T>
__global__ void __launch_bounds__(kMostRowThreads) norm_rows(Norm<T> p) {
  GPU_SHARED(shared);
  const int64_t row = blockIdx.x;
  const float r = rms_row<kCount>(RmsRow<T>{p.x.at(row), p.w, p.cols}, p.y.at(row), p.eps, reinterpret_cast<float*>(shared));
  if (threadIdx.x == 0) p.r[row] = r;
}

template <class T>
struct NormGrad {
  Rows<T> dx;           // [N, C]
  Rows<const T> dy;     // [N, C]
  Rows<const T> x;      // [N, C]
  const float* w;       // [C]
  const float* r;       // [N]
  Rows<const T> carry;  // [N, C] or not given
  int64_t cols;
};

template <int kCount, class T>
__global__ void __launch_bounds__(kMostRowThreads) norm_rows_grad(NormGrad<T> p) {
  GPU_SHARED(shared);
  const int64_t row = blockIdx.x;
  const RmsRow<T> own{p.x.at(row), p.w, p.cols};
  rms_row_grad<kCount>(own, p.r[row], p.dy.at(row), p.carry.at(row), p.dx.at(row), reinterpret_cast<float*>(shared));
}

constexpr int kShared = kWarpSums * sizeof(float);

}  // namespace

void rms_norm(const RmsNorm& op, Queue& queue) {
  const auto rows = static_cast<unsigned>(op.x.rows());
  const int64_t cols = op.x.cols();
  if (rows == 0) return;
  with_activation(op.x.dtype, [&](auto stored) {
    using T = typename decltype(stored)::Type;
    const Norm<T> p{rows_of<T>(op.y), op.r.f32(), rows_of<const T>(op.x), op.w.f32(), cols, op.eps};
    by_packs<kPack<T>>(cols, [&](auto count) {
      constexpr int kCount = decltype(count)::value;
      GPU_LAUNCH((norm_rows<kCount, T>), rows, row_threads(cols, kCount), kShared, queue.stream(), p);
    }, p.y, p.x, p.w);
  });
}

void rms_norm_grad(const RmsNormGrad& op, Queue& queue) {
  const auto rows = static_cast<unsigned>(op.x.rows());
  const int64_t cols = op.x.cols();
  if (rows == 0) return;
  with_activation(op.x.dtype, [&](auto stored) {
    using T = typename decltype(stored)::Type;
    const NormGrad<T> p{rows_of<T>(op.dx), rows_of<const T>(op.dy), rows_of<const T>(op.x), op.w.f32(), op.r.f32(), rows_of<const T>(op.carry), cols};
    by_packs<kPack<T>>(cols, [&](auto count) {
      constexpr int kCount = decltype(count)::value;
      GPU_LAUNCH((norm_rows_grad<kCount, T>), rows, row_threads(cols, kCount), kShared, queue.stream(), p);
    }, p.dx, p.dy, p.x, p.w, p.carry);
  });
}

}  // namespace lowrank::cuda
