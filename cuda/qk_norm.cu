#include "dtypes.cuh"
#include "kernels.h"
#include "rms_row.cuh"

namespace lowrank::cuda {

namespace {

// A block is one head of one row: x is the row's head, or y and dx at the same place.
struct Head {
  int64_t offset;      // of its first number
  int64_t scale_index; // of its r; -1: a value head, which is copied
  bool is_query;
};

struct HeadShape {
  int64_t query, key_value, size;
};

GPU_FN Head head_of_block(const HeadShape& shape) {
  const int64_t all = shape.query + 2 * shape.key_value, normed = shape.query + shape.key_value;
  const int64_t row = blockIdx.x / all, head = blockIdx.x % all;
  return {blockIdx.x * shape.size, head < normed ? row * normed + head : -1, head < shape.query};
}

template <class T>
GPU_FN void copy_head(const T* from, T* to, int64_t size) {
  for_packs<1>(size, [&](int64_t i) { to[i] = from[i]; });
}

template <class T>
struct Norm {
  T* y;
  float* r;
  const T* x;
  const float* wq;
  const float* wk;
  HeadShape shape;
  float eps;
};

template <int kCount, class T>
__global__ void __launch_bounds__(kMostRowThreads) norm_heads(Norm<T> p) {
  GPU_SHARED(shared);
  const Head head = head_of_block(p.shape);
  if (head.scale_index < 0) return copy_head(p.x + head.offset, p.y + head.offset, p.shape.size);
  const RmsRow<T> row{p.x + head.offset, head.is_query ? p.wq : p.wk, p.shape.size};
  const float r = rms_row<kCount>(row, p.y + head.offset, p.eps, reinterpret_cast<float*>(shared));
  if (threadIdx.x == 0) p.r[head.scale_index] = r;
}

template <class T>
struct NormGrad {
  T* dx;
  const T* dy;
  const T* x;
  const float* wq;
  const float* wk;
  const float* r;
  HeadShape shape;
};

template <int kCount, class T>
__global__ void __launch_bounds__(kMostRowThreads) norm_heads_grad(NormGrad<T> p) {
  GPU_SHARED(shared);
  const Head head = head_of_block(p.shape);
  if (head.scale_index < 0) return copy_head(p.dy + head.offset, p.dx + head.offset, p.shape.size);
  const RmsRow<T> row{p.x + head.offset, head.is_query ? p.wq : p.wk, p.shape.size};
  const T* no_carry = nullptr;
  rms_row_grad<kCount>(row, p.r[head.scale_index], p.dy + head.offset, no_carry, p.dx + head.offset, reinterpret_cast<float*>(shared));
}

constexpr int kShared = kWarpSums * sizeof(float);

}  // namespace

void qk_norm(const QkNorm& op, Queue& queue) {
  const HeadShape shape{op.heads.query, op.heads.key_value, op.heads.size(op.x)};
  const auto blocks = static_cast<unsigned>(op.x.rows() * op.heads.all());
  if (blocks == 0) return;
  with_activation(op.x.dtype, [&](auto stored) {
    using T = typename decltype(stored)::Type;
    const Norm<T> p{op.y.as<T>(), op.r.f32(), op.x.as<T>(), op.wq.f32(), op.wk.f32(), shape, op.eps};
    if (fours(shape.size, p.y, p.x, p.wq, p.wk)) {
      GPU_LAUNCH((norm_heads<4, T>), blocks, row_threads(shape.size, 4), kShared, queue.stream(), p);
    } else {
      GPU_LAUNCH((norm_heads<1, T>), blocks, row_threads(shape.size, 1), kShared, queue.stream(), p);
    }
  });
}

void qk_norm_grad(const QkNormGrad& op, Queue& queue) {
  const HeadShape shape{op.heads.query, op.heads.key_value, op.heads.size(op.x)};
  const auto blocks = static_cast<unsigned>(op.x.rows() * op.heads.all());
  if (blocks == 0) return;
  with_activation(op.x.dtype, [&](auto stored) {
    using T = typename decltype(stored)::Type;
    const NormGrad<T> p{op.dx.as<T>(), op.dy.as<T>(), op.x.as<T>(), op.wq.f32(), op.wk.f32(), op.r.f32(), shape};
    if (fours(shape.size, p.dx, p.dy, p.x, p.wq, p.wk)) {
      GPU_LAUNCH((norm_heads_grad<4, T>), blocks, row_threads(shape.size, 4), kShared, queue.stream(), p);
    } else {
      GPU_LAUNCH((norm_heads_grad<1, T>), blocks, row_threads(shape.size, 1), kShared, queue.stream(), p);
    }
  });
}

}  // namespace lowrank::cuda
