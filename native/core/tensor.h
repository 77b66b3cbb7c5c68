// What kernels see of a tensor and of a frozen weight: plain data, no ownership.
#pragma once
#include "dtype.h"

namespace lowrank {

constexpr int kMaxDims = 4;

// Row-major: `rows` x `cols`, cols being the last dimension, rows `pitch` elements apart. Only activations of a backend with a border
// (see Backend) have a pitch beyond cols; what lies between belongs to nobody from one op to the next.
// An optional operand that was not given has data == nullptr and rank < 0.
struct Tensor {
  void* data;
  DType dtype;
  int32_t rank;
  int64_t dims[kMaxDims];
  int64_t pitch;

  LOWRANK_INLINE bool given() const { return rank >= 0; }
  LOWRANK_INLINE int64_t count() const {
    int64_t n = 1;
    for (int i = 0; i < rank; ++i) n *= dims[i];
    return n;
  }
  LOWRANK_INLINE int64_t cols() const { return rank > 0 ? dims[rank - 1] : 1; }
  LOWRANK_INLINE int64_t rows() const {
    int64_t n = 1;
    for (int i = 0; i + 1 < rank; ++i) n *= dims[i];
    return n;
  }
  LOWRANK_INLINE int64_t bytes() const { return count() * size_of(dtype); }
  LOWRANK_INLINE bool contiguous() const { return pitch == cols() || rows() <= 1; }
  // Bytes that it takes in memory, with what lies behind its rows.
  LOWRANK_INLINE int64_t extent() const { return rows() * pitch * size_of(dtype); }
  template <class T>
  LOWRANK_INLINE T* as() const { return static_cast<T*>(data); }
  LOWRANK_INLINE float* f32() const { return static_cast<float*>(data); }
  LOWRANK_INLINE const int32_t* i32() const { return static_cast<const int32_t*>(data); }
};

LOWRANK_INLINE bool same_shape(const Tensor& a, const Tensor& b) {
  if (a.rank != b.rank) return false;
  for (int i = 0; i < a.rank; ++i)
    if (a.dims[i] != b.dims[i]) return false;
  return true;
}

LOWRANK_INLINE bool is_matrix(const Tensor& t, int64_t rows, int64_t cols) {
  return t.rows() == rows && t.cols() == cols;
}

// How the bytes of a frozen weight lie. `out_in` is nn.Linear's [N, K]; `in_out` is GPT-2's Conv1D, [K, N].
enum class WeightOrder : int32_t { out_in = 0, in_out = 1 };

constexpr int kMaxParts = 3;

// A frozen weight W0 [N, K]: up to three matrices that read the same x (q|k|v, gate|up), one below the other.
// Without a border the bytes stay where they are (usually a mapped file) and in the dtype they have. With one, the parts are one matrix
// that begins at data[0]: one below the other, or side by side for in_out, with `border` spare columns and as many spare rows behind it.
struct Weight {
  const void* data[kMaxParts];
  int64_t out[kMaxParts];  // rows N_i of each part
  int64_t in;              // K
  int64_t pitch;           // with a border: elements from one stored row to the next; else 0
  int32_t border;          // 0: none
  DType dtype;
  WeightOrder order;
  int32_t parts;

  LOWRANK_INLINE int64_t rows() const {
    int64_t n = 0;
    for (int i = 0; i < parts; ++i) n += out[i];
    return n;
  }
};

}  // namespace lowrank
