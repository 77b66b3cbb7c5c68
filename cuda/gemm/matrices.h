// Operands of a product as it wants them: in 16 bits, aligned. What lies otherwise is copied into scratch, which costs a pass over it.
#pragma once
#include "../../native/core/tensor.h"
#include "gemm.h"

namespace lowrank::cuda {

constexpr int64_t kBorder = 64;  // spare columns behind activations, spare columns and rows behind frozen weights

struct Halves {
  const void* data = nullptr;
  int64_t pitch = 0;
  bool bordered = false;
};

// [rows, cols] of 16 bits or more.
struct StoredMatrix {
  const void* data = nullptr;
  DType dtype = DType::bf16;
  int64_t rows = 0, cols = 0, pitch = 0;
};
// As `dtype`. data == nullptr: the op has been failed.
Halves halves_of(Queue& queue, const StoredMatrix& stored, DType dtype);

// Scratch for a copy of [rows, cols] with a border, and the copy itself: what stands in the border stays.
Halves bordered_room(Queue& queue, int64_t rows, int64_t cols);
void copy_into(Queue& queue, const Halves& room, const StoredMatrix& stored, DType dtype);

// Columns [column, column + count) of an activation. A copy has a border.
Halves halves_of(Queue& queue, const Tensor& tensor, int64_t column, int64_t count);

// A frozen weight: one matrix for all parts where it has a border, else a matrix for each.
struct Frozen {
  Halves at[kMaxParts];
  int32_t count = 0;
  Lie forward = Lie::columns;  // of W^T [K, N] as the right factor; on the way back W [N, K] lies the other way

  Lie backward() const { return forward == Lie::columns ? Lie::rows : Lie::columns; }
  bool bordered() const { return count == 1 && at[0].bordered; }
  bool good() const {
    for (int i = 0; i < count; ++i) {
      if (at[i].data == nullptr) return false;
    }
    return true;
  }
};
Frozen frozen_of(Queue& queue, const Weight& w, DType dtype);

inline const void* elements_from(const void* data, int64_t elements) { return static_cast<const uint16_t*>(data) + elements; }
inline void* elements_from(void* data, int64_t elements) { return static_cast<uint16_t*>(data) + elements; }
inline int64_t whole_pieces(int64_t count) { return (count + 7) / 8 * 8; }

}  // namespace lowrank::cuda
