#include "dtypes.cuh"
#include "kernels.h"
#include "rms_row.cuh"

namespace lowrank::cuda {

namespace {

template <class T>
struct Norm {
  T* y;         // [N, C]
  float* r;     // [N]
  const T* x;   // [N, C]
  const float* w;
  int64_t cols;
  float eps;
};

template <int kCount, class T>
__global__ void __launch_bounds__(kMostRowThreads) norm_rows(Norm<T> p) {
  GPU_SHARED(shared);
  const int64_t row = blockIdx.x, at = row * p.cols;
  const float r = rms_row<kCount>(RmsRow<T>{p.x + at, p.w, p.cols}, p.y + at, p.eps, reinterpret_cast<float*>(shared));
  if (threadIdx.x == 0) p.r[row] = r;
}

template <class T>
struct NormGrad {
  T* dx;           // [N, C]
  const T* dy;     // [N, C]
  const T* x;      // [N, C]
  const float* w;  // [C]
  const float* r;  // [N]
  const T* carry;  // [N, C] or nullptr
  int64_t cols;
};

template <int kCount, class T>
__global__ void __launch_bounds__(kMostRowThreads) norm_rows_grad(NormGrad<T> p) {
  GPU_SHARED(shared);
  const int64_t row = blockIdx.x, at = row * p.cols;
  const T* carry = p.carry == nullptr ? nullptr : p.carry + at;
  rms_row_grad<kCount>(RmsRow<T>{p.x + at, p.w, p.cols}, p.r[row], p.dy + at, carry, p.dx + at, reinterpret_cast<float*>(shared));
}

constexpr int kShared = kWarpSums * sizeof(float);

}  // namespace

void rms_norm(const RmsNorm& op, Queue& queue) {
  const auto rows = static_cast<unsigned>(op.x.rows());
  const int64_t cols = op.x.cols();
  if (rows == 0) return;
  with_activation(op.x.dtype, [&](auto stored) {
    using T = typename decltype(stored)::Type;
    const Norm<T> p{op.y.as<T>(), op.r.f32(), op.x.as<T>(), op.w.f32(), cols, op.eps};
    if (fours(cols, p.y, p.x, p.w)) {
      GPU_LAUNCH((norm_rows<4, T>), rows, row_threads(cols, 4), kShared, queue.stream(), p);
    } else {
      GPU_LAUNCH((norm_rows<1, T>), rows, row_threads(cols, 1), kShared, queue.stream(), p);
    }
  });
}

void rms_norm_grad(const RmsNormGrad& op, Queue& queue) {
  const auto rows = static_cast<unsigned>(op.x.rows());
  const int64_t cols = op.x.cols();
  if (rows == 0) return;
  with_activation(op.x.dtype, [&](auto stored) {
    using T = typename decltype(stored)::Type;
    const T* carry = op.carry.given() ? op.carry.as<T>() : nullptr;
    const NormGrad<T> p{op.dx.as<T>(), op.dy.as<T>(), op.x.as<T>(), op.w.f32(), op.r.f32(), carry, cols};
    if (fours(cols, p.dx, p.dy, p.x, p.w, p.carry)) {
      GPU_LAUNCH((norm_rows_grad<4, T>), rows, row_threads(cols, 4), kShared, queue.stream(), p);
    } else {
      GPU_LAUNCH((norm_rows_grad<1, T>), rows, row_threads(cols, 1), kShared, queue.stream(), p);
    }
  });
}

}  // namespace lowrank::cuda
