// Products of few rows (decoding): W is read once, in the dtype it is stored in and where it lies, at the speed of memory.
#pragma once
#include "desc.h"
#include "transpose.h"

namespace lowrank::cpu::LOWRANK_ISA {

// More rows than this are a GEMM's: packing W pays from there on (bench/decode measures both sides of the border).
constexpr int64_t kGemvRows = 32;

// y [m, n] = scale * (x W + u B^T) + bias + carry.
struct Gemv {
  int64_t m = 0;  // <= kGemvRows
  int64_t k = 0, n = 0;
  const float* x = nullptr;
  int64_t x_pitch = 0;
  Right w;  // [k, n]
  float scale = 1.0f;
  float* y = nullptr;
  int64_t y_pitch = 0;
  const float* bias = nullptr;   // [n]
  const float* carry = nullptr;  // [m, n] of y's pitch; may be y
  const float* u = nullptr;      // [m, rank]
  int64_t u_pitch = 0, rank = 0;
  const float* b = nullptr;      // [n, rank]
};

// All of them with the same hands; none may read what another writes.
void multiply_few(const Context& context, const Gemv* gemvs, int count);

}  // namespace lowrank::cpu::LOWRANK_ISA
