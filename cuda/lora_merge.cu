#include "dtypes.cuh"
#include "kernels.h"
#include "map.cuh"

namespace lowrank::cuda {

namespace {

// merged[n, k] = W[n, k] + scale * sum_r B[n, r] A[r, k], stored [n, k] or [k, n].
template <class T>
struct MergeBody {
  T* merged;
  Rows<const T> w;
  const float* a;  // [rank, K]
  const float* b;  // [N, rank]
  int64_t cols, rank, k_count;
  float scale;
  bool in_out;

  GPU_FN void merge(int64_t i) const {
    const int64_t row = i / cols, column = i % cols, n = in_out ? column : row, k = in_out ? row : column;
    float sum = 0;
    for (int64_t r = 0; r < rank; ++r) sum = fmaf(b[n * rank + r], a[r * k_count + k], sum);
    merged[i] = from_f32<T>(to_f32(w.at(row)[column]) + scale * sum);
  }
  template <int kCount>
  GPU_FN void at(int64_t, int64_t i) const {
    for (int j = 0; j < kCount; ++j) merge(i + j);
  }
};

}  // namespace

void lora_merge(const LoraMerge& op, Queue& queue) {
  with_frozen(op.w.dtype, [&](auto stored) {
    using T = typename decltype(stored)::Type;
    const MergeBody<T> body{op.merged.as<T>(), rows_of<const T>(op.w), op.a.f32(), op.b.f32(), op.w.cols(), op.a.rows(), op.a.cols(), op.scale, op.order != 0};
    map<1>(queue, body, {1, op.w.count()});
  });
}

}  // namespace lowrank::cuda
