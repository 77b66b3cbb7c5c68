#include "dtypes.cuh"
#include "kernels.h"
#include "rms_row.cuh"

namespace lowrank::cuda {

namespace {

// A block is one head of one row.
struct Head {
  int64_t row, column;  // of its first number
  int64_t scale_index;  // of its r; -1: a value head, which is copied
  bool is_query;
};

struct HeadShape {
  int64_t query, key_value, size;
};

GPU_FN Head head_of_block(const HeadShape& shape) {
  const int64_t all = shape.query + 2 * shape.key_value, normed = shape.query + shape.key_value;
  const int64_t row = blockIdx.x / all, head = blockIdx.x % all;
  return {row, head * shape.size, head < normed ? row * normed + head : -1, head < shape.query};
}

template <int kCount, class T>
GPU_FN void copy_head(const T* from, T* to, int64_t size) {
  using Whole = Pack<T, kCount>;
  for_packs<kCount>(size, [&](int64_t i) { *reinterpret_cast<Whole*>(to + i) = *reinterpret_cast<const Whole*>(from + i); });
}

template <class T>
struct Norm {
  Rows<T> y;
  float* r;
  Rows<const T> x;
  const float* wq;
  const float* wk;
  HeadShape shape;
  float eps;
};

template <int kCount, class T>
__global__ void __launch_bounds__(kMostRowThreads) norm_heads(Norm<T> p) {
  GPU_SHARED(shared);
  const Head head = head_of_block(p.shape);
  const T* x = p.x.at(head.row) + head.column;
  T* y = p.y.at(head.row) + head.column;
  if (head.scale_index < 0) return copy_head<kCount>(x, y, p.shape.size);
  const RmsRow<T> row{x, head.is_query ? p.wq : p.wk, p.shape.size};
  const float r = rms_row<kCount>(row, y, p.eps, reinterpret_cast<float*>(shared));
  if (threadIdx.x == 0) p.r[head.scale_index] = r;
}

template <class T>
struct NormGrad {
  Rows<T> dx;
  Rows<const T> dy;
  Rows<const T> x;
  const float* wq;
  const float* wk;
  const float* r;
  HeadShape shape;
};

template <int kCount, class T>
__global__ void __launch_bounds__(kMostRowThreads) norm_heads_grad(NormGrad<T> p) {
  GPU_SHARED(shared);
  const Head head = head_of_block(p.shape);
  const T* dy = p.dy.at(head.row) + head.column;
  T* dx = p.dx.at(head.row) + head.column;
  if (head.scale_index < 0) return copy_head<kCount>(dy, dx, p.shape.size);
  const RmsRow<T> row{p.x.at(head.row) + head.column, head.is_query ? p.wq : p.wk, p.shape.size};
  const T* no_carry = nullptr;
  rms_row_grad<kCount>(row, p.r[head.scale_index], dy, no_carry, dx, reinterpret_cast<float*>(shared));
}

constexpr int kShared = kWarpSums * sizeof(float);

}  // namespace

void qk_norm(const QkNorm& op, Queue& queue) {
  const HeadShape shape{op.heads.query, op.heads.key_value, op.heads.size(op.x)};
  const auto blocks = static_cast<unsigned>(op.x.rows() * op.heads.all());
  if (blocks == 0) return;
  with_activation(op.x.dtype, [&](auto stored) {
    using T = typename decltype(stored)::Type;
    const Norm<T> p{rows_of<T>(op.y), op.r.f32(), rows_of<const T>(op.x), op.wq.f32(), op.wk.f32(), shape, op.eps};
    by_packs<kPack<T>>(shape.size, [&](auto count) {
      constexpr int kCount = decltype(count)::value;
      GPU_LAUNCH((norm_heads<kCount, T>), blocks, row_threads(shape.size, kCount), kShared, queue.stream(), p);
    }, p.y, p.x, p.wq, p.wk);
  });
}

void qk_norm_grad(const QkNormGrad& op, Queue& queue) {
  const HeadShape shape{op.heads.query, op.heads.key_value, op.heads.size(op.x)};
  const auto blocks = static_cast<unsigned>(op.x.rows() * op.heads.all());
  if (blocks == 0) return;
  with_activation(op.x.dtype, [&](auto stored) {
    using T = typename decltype(stored)::Type;
    const NormGrad<T> p{rows_of<T>(op.dx), rows_of<const T>(op.dy), rows_of<const T>(op.x), op.wq.f32(), op.wk.f32(), op.r.f32(), shape};
    by_packs<kPack<T>>(shape.size, [&](auto count) {
      constexpr int kCount = decltype(count)::value;
      GPU_LAUNCH((norm_heads_grad<kCount, T>), blocks, row_threads(shape.size, kCount), kShared, queue.stream(), p);
    }, p.dx, p.dy, p.x, p.wq, p.wk);
  });
}

}  // namespace lowrank::cuda
