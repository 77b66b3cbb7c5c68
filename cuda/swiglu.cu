#include "activation.cuh"
#include "dtypes.cuh"
#include "kernels.h"
#include "rows.cuh"

namespace lowrank::cuda {

namespace {

// Rows of x are gate | up, each `cols` wide.
template <class T>
struct Forward {
  T* y;        // [T, cols]
  const T* x;  // [T, 2 cols]
  int64_t cols;
};

template <int kCount, class T>
__global__ void __launch_bounds__(kMostRowThreads) swiglu_rows(Forward<T> p) {
  const T* gate = p.x + blockIdx.x * 2 * p.cols;
  T* y = p.y + blockIdx.x * p.cols;
  for_packs<kCount>(p.cols, [&](int64_t i) {
    const Floats<kCount> z = load<kCount>(gate + i);
    Floats<kCount> result = load<kCount>(gate + p.cols + i);
    for (int j = 0; j < kCount; ++j) result.at[j] *= z.at[j] * sigmoid(z.at[j]);
    store<kCount>(y + i, result);
  });
}

template <class T>
struct Backward {
  T* dx;        // [T, 2 cols], may be x
  const T* dy;  // [T, cols]
  const T* x;   // [T, 2 cols]
  int64_t cols;
};

template <int kCount, class T>
__global__ void __launch_bounds__(kMostRowThreads) swiglu_rows_grad(Backward<T> p) {
  const int64_t row = blockIdx.x, at = row * 2 * p.cols;
  for_packs<kCount>(p.cols, [&](int64_t i) {
    const Floats<kCount> z = load<kCount>(p.x + at + i), up = load<kCount>(p.x + at + p.cols + i), dy = load<kCount>(p.dy + row * p.cols + i);
    Floats<kCount> dgate, dup;
    for (int j = 0; j < kCount; ++j) {
      const float q = sigmoid(z.at[j]), pull = dy.at[j] * q;
      dgate.at[j] = pull * up.at[j] * (1.0f + z.at[j] * (1.0f - q));
      dup.at[j] = pull * z.at[j];
    }
    store<kCount>(p.dx + at + i, dgate);
    store<kCount>(p.dx + at + p.cols + i, dup);
  });
}

}  // namespace

void swiglu(const Swiglu& op, Queue& queue) {
  const auto rows = static_cast<unsigned>(op.y.rows());
  const int64_t cols = op.y.cols();
  if (rows == 0 || cols == 0) return;
  with_activation(op.x.dtype, [&](auto stored) {
    using T = typename decltype(stored)::Type;
    const Forward<T> p{op.y.as<T>(), op.x.as<T>(), cols};
    if (fours(cols, p.y, p.x)) {
      GPU_LAUNCH((swiglu_rows<4, T>), rows, row_threads(cols, 4), 0, queue.stream(), p);
    } else {
      GPU_LAUNCH((swiglu_rows<1, T>), rows, row_threads(cols, 1), 0, queue.stream(), p);
    }
  });
}

void swiglu_grad(const SwigluGrad& op, Queue& queue) {
  const auto rows = static_cast<unsigned>(op.dy.rows());
  const int64_t cols = op.dy.cols();
  if (rows == 0 || cols == 0) return;
  with_activation(op.x.dtype, [&](auto stored) {
    using T = typename decltype(stored)::Type;
    const Backward<T> p{op.dx.as<T>(), op.dy.as<T>(), op.x.as<T>(), cols};
    if (fours(cols, p.dx, p.dy, p.x)) {
      GPU_LAUNCH((swiglu_rows_grad<4, T>), rows, row_threads(cols, 4), 0, queue.stream(), p);
    } else {
      GPU_LAUNCH((swiglu_rows_grad<1, T>), rows, row_threads(cols, 1), 0, queue.stream(), p);
    }
  });
}

}  // namespace lowrank::cuda
