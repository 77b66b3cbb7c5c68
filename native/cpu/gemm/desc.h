// What a product is: C [M, N] = sum of A_p [M, k_p] B_p [k_p, N] (+ bias, + C or a residual), without a word on how.
#pragma once
#include "../philox.h"

namespace lowrank::cpu::LOWRANK_ISA {

// How a matrix lies: `rows` is as its name is written, `columns` is its transpose.
enum class Lie : int32_t { rows, columns };

// A: [M, k].
struct Left {
  const float* data = nullptr;  // nullptr: made by a Side
  int64_t k = 0;
  int64_t pitch = 0;
};

// B: [k, N]. `rows` [k, N] or `columns` [N, k], in the dtype it is stored in and at any address of that dtype.
struct Right {
  const void* data = nullptr;
  DType dtype = DType::f32;
  int64_t pitch = 0;
  Lie lie = Lie::rows;
  bool frozen = false;  // W0: its products may be taken in bf16 (Context::frozen)
};

// A summand: columns [first, first + k) of a Left, times a Right [k, N].
struct Product {
  int left = 0;
  int64_t first = 0;
  int64_t k = 0;
  Right right;
  Dropout mask;  // applied to the product, written down; element (m, n) is number m * N + n
};

constexpr int kMaxLefts = kMaxParts + 1;
constexpr int kMaxProducts = 2 * kMaxParts;

enum class Start : int32_t { zero, add };

// A block of columns of C, with its own B's.
struct Columns {
  int64_t n = 0;
  Product products[kMaxProducts];
  int count = 0;
  float* c = nullptr;            // [M, n]
  int64_t pitch = 0;
  Start start = Start::zero;
  const float* bias = nullptr;   // [n]
  const float* carry = nullptr;  // [M, n] of the same pitch; may be c

  LOWRANK_INLINE Product& add(int left, int64_t k, const Right& right) {
    Product& product = products[count++];
    product.left = left, product.k = k, product.right = right;
    return product;
  }
};

// A skinny product taken while a panel of A is in the cache: out [M, n] = scale * drop(A) right. It is itself a Left of the
// product (u in [x | u]), from column `first` on.
struct Side {
  int from = 0;
  int into = -1;  // -1: only `out` is wanted
  int64_t first = 0;
  int64_t n = 0;
  Right right;    // [k of `from`, n]
  float scale = 1.0f;
  Dropout drop;   // element (m, k) of A is number m * k_count + k
  float* out = nullptr;
  int64_t pitch = 0;
};

struct Gemm {
  int64_t m = 0;
  Left lefts[kMaxLefts];
  int left_count = 0;
  Side sides[kMaxParts];
  int side_count = 0;
  Columns columns[kMaxParts];
  int column_count = 0;
};

// Right operands of a frozen weight's part: W_i^T [K, N_i] for the forward, W_i [N_i, K] for dx.
LOWRANK_INLINE Right weight_transposed(const Weight& w, int part) {
  Right right;
  right.data = w.data[part], right.dtype = w.dtype, right.frozen = true;
  right.lie = w.order == WeightOrder::out_in ? Lie::columns : Lie::rows;
  right.pitch = w.order == WeightOrder::out_in ? w.in : w.out[part];
  return right;
}

LOWRANK_INLINE Right weight_straight(const Weight& w, int part) {
  Right right = weight_transposed(w, part);
  right.lie = right.lie == Lie::rows ? Lie::columns : Lie::rows;
  return right;
}

LOWRANK_INLINE Right f32_matrix(const float* data, int64_t pitch, Lie lie) {
  Right right;
  right.data = data, right.pitch = pitch, right.lie = lie;
  return right;
}

}  // namespace lowrank::cpu::LOWRANK_ISA
