// The project's one matrix product in f32: C = scale * sum of left_s right_s (+ bias) (+ carry) (+ C). Factors may lie in any order and
// be stored in 16 bits; they are expanded on their way into shared memory. Every op with a product describes it with this.
#pragma once
#include "../native/core/dtype.h"
#include "../native/core/tensor.h"
#include "philox.cuh"
#include "queue.h"

namespace lowrank::cuda {

// Element (i, j) is data[i * row + j * column].
struct Matrix {
  const void* data = nullptr;
  DType dtype = DType::f32;
  int64_t row = 0, column = 0;
};

// What a dropout mask of a term lies on: element (i, j) of that matrix is number i * mask_pitch + j.
enum class MaskOn : int32_t { nothing, left, right, result };

struct Term {
  Matrix left, right;  // [m, k], [k, n]
  int64_t k = 0;
  MaskOn mask_on = MaskOn::nothing;
  int64_t mask_pitch = 0;
  Dropout mask;
};

enum class Start : int32_t { write, add };  // C anew, or added to

constexpr int kMostTerms = 2 * kMaxParts;

struct Product {
  int64_t m = 0, n = 0;
  Term terms[kMostTerms];
  int32_t count = 0;
  float scale = 1.0f;
  const float* bias = nullptr;   // [n]
  const float* carry = nullptr;  // as C
  float* c = nullptr;            // element (i, j) is c[i * c_row + j * c_column]
  int64_t c_row = 0, c_column = 1;
  Start start = Start::write;

  Term& add(const Matrix& left, const Matrix& right, int64_t k) {
    Term& term = terms[count++];
    term.left = left, term.right = right, term.k = k;
    return term;
  }
};

void multiply(Queue& queue, const Product& product);
// A product with one long term and a small result (a gradient of A or B): k is cut into chunks of a fixed size, whose results are added
// in order. The same bits on every device.
void multiply_long(Queue& queue, const Product& product);

// Row-major [*, pitch], read straight or transposed.
inline Matrix straight(const float* data, int64_t pitch) { return {data, DType::f32, pitch, 1}; }
inline Matrix across(const float* data, int64_t pitch) { return {data, DType::f32, 1, pitch}; }

// Part i of a frozen weight: W_i^T [K, N_i] for the way forward, W_i [N_i, K] for the way back.
inline Matrix weight_straight(const Weight& w, int part) {
  if (w.order == WeightOrder::out_in) return {w.data[part], w.dtype, w.border > 0 ? w.pitch : w.in, 1};
  return {w.data[part], w.dtype, 1, w.border > 0 ? w.pitch : w.out[part]};
}
inline Matrix weight_across(const Weight& w, int part) {
  const Matrix matrix = weight_straight(w, part);
  return {matrix.data, matrix.dtype, matrix.column, matrix.row};
}

}  // namespace lowrank::cuda
