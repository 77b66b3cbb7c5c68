#include "activation.cuh"
#include "dtypes.cuh"
#include "kernels.h"
#include "rows.cuh"

namespace lowrank::cuda {

namespace {

// Rows of x are gate | up, each `cols` wide.
template <class T>
struct Forward {
  Rows<T> y;        // [T, cols]
  Rows<const T> x;  // [T, 2 cols]
  int64_t cols;
};

template <int kCount, class T>
__global__ void __launch_bounds__(kMostRowThreads) swiglu_rows(Forward<T> p) {
  const T* gate = p.x.at(blockIdx.x);
  T* y = p.y.at(blockIdx.x);
  for_packs<kCount>(p.cols, [&](int64_t i) {
    const Floats<kCount> z = load<kCount>(gate + i);
    Floats<kCount> result = load<kCount>(gate + p.cols + i);
    for (int j = 0; j < kCount; ++j) result.at[j] = gated(z.at[j], result.at[j]);
    store<kCount>(y + i, result);
  });
}

template <class T>
struct Backward {
  Rows<T> dx;        // [T, 2 cols], may be x
  Rows<const T> dy;  // [T, cols]
  Rows<const T> x;   // [T, 2 cols]
  int64_t cols;
};

template <int kCount, class T>
__global__ void __launch_bounds__(kMostRowThreads) swiglu_rows_grad(Backward<T> p) {
  const T* gate = p.x.at(blockIdx.x);
  const T* dy_row = p.dy.at(blockIdx.x);
  T* dx = p.dx.at(blockIdx.x);
  for_packs<kCount>(p.cols, [&](int64_t i) {
    const Floats<kCount> z = load<kCount>(gate + i), up = load<kCount>(gate + p.cols + i), dy = load<kCount>(dy_row + i);
    Floats<kCount> dgate, dup;
    for (int j = 0; j < kCount; ++j) {
      const GatedGradient d = gated_gradient(dy.at[j], z.at[j], up.at[j]);
      dgate.at[j] = d.gate, dup.at[j] = d.up;
    }
    store<kCount>(dx + i, dgate);
    store<kCount>(dx + p.cols + i, dup);
  });
}

}  // namespace

void swiglu(const Swiglu& op, Queue& queue) {
  const auto rows = static_cast<unsigned>(op.y.rows());
  const int64_t cols = op.y.cols();
  if (rows == 0 || cols == 0) return;
  with_activation(op.x.dtype, [&](auto stored) {
    using T = typename decltype(stored)::Type;
    const Forward<T> p{rows_of<T>(op.y), rows_of<const T>(op.x), cols};
    by_packs<kPack<T>>(cols, [&](auto count) {
      constexpr int kCount = decltype(count)::value;
      GPU_LAUNCH((swiglu_rows<kCount, T>), rows, row_threads(cols, kCount), 0, queue.stream(), p);
    }, p.y, p.x);
  });
}

void swiglu_grad(const SwigluGrad& op, Queue& queue) {
  const auto rows = static_cast<unsigned>(op.dy.rows());
  const int64_t cols = op.dy.cols();
  if (rows == 0 || cols == 0) return;
  with_activation(op.x.dtype, [&](auto stored) {
    using T = typename decltype(stored)::Type;
    const Backward<T> p{rows_of<T>(op.dx), rows_of<const T>(op.dy), rows_of<const T>(op.x), cols};
    by_packs<kPack<T>>(cols, [&](auto count) {
      constexpr int kCount = decltype(count)::value;
      GPU_LAUNCH((swiglu_rows_grad<kCount, T>), rows, row_threads(cols, kCount), 0, queue.stream(), p);
    }, p.dx, p.dy, p.x);
  });
}

}  // namespace lowrank::cuda
