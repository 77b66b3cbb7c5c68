// Products of 16-bit matrices with sums in f32: C = sum of A_s B_s (+ bias) (+ carry). A is stored row by row; B either way. What is
// described here is computed by the kernel of tiles.cu, or by cublasLt where that is at hand.
#pragma once
#include "../../native/core/dtype.h"
#include "../queue.h"

namespace lowrank::cuda {

// How B [k, n] is stored: its own rows one after the other, or its columns (nn.Linear's [n, k]).
enum class Lie : int32_t { rows, columns };

// A summand. Pitches are in elements, from one stored row to the next. A and B begin at multiples of 16 bytes, and so do their rows.
struct GemmTerm {
  const void* a = nullptr;  // [m, k]
  const void* b = nullptr;
  int64_t k = 0, a_pitch = 0, b_pitch = 0;
};

constexpr int kMostGemmTerms = 4;

struct Gemm {
  DType dtype = DType::bf16;  // of every A and B, of the carry, and of C where it has 16 bits
  Lie b_lie = Lie::columns;   // of every B
  int64_t m = 0, n = 0;
  GemmTerm terms[kMostGemmTerms];  // the heaviest first
  int32_t count = 0;
  int32_t c_is_f32 = 0;
  void* c = nullptr;  // [m, n]
  int64_t c_pitch = 0;
  const float* bias = nullptr;  // [n]
  const void* carry = nullptr;  // [m, n]; may be c, which then is added to. Not with a C in f32
  int64_t carry_pitch = 0;

  void add(const void* a, int64_t a_pitch, const void* b, int64_t b_pitch, int64_t k) { terms[count++] = {a, b, k, a_pitch, b_pitch}; }
};

// Same bits on every device for the own kernel: k is cut by the product's shape alone.
void gemm(Queue& queue, const Gemm& product);
// The own kernel, whatever else is at hand.
void gemm_tiles(Queue& queue, const Gemm& product);

}  // namespace lowrank::cuda
