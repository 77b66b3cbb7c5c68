// RmsNorm of one row, for rms_norm (a row is a token) and qk_norm (a row is a head).
#pragma once
#include <math.h>

#include "rows.h"

namespace lowrank::cpu::LOWRANK_ISA {

namespace {

struct RmsRow {
  const float* x;  // [cols]
  const float* w;  // [cols]
  int64_t cols;
};

// The sum is kept in f32 lanes: C/lanes additions each, so the error grows with C/16, not with C.
LOWRANK_INLINE float mean_square(const float* x, int64_t cols) {
  return sum_of(cols, [x](auto d, int64_t i, auto part) {
    const auto v = part.load(d, x + i);
    return hn::Mul(v, v);
  }) / static_cast<float>(cols);
}

// Writes y and returns r.
LOWRANK_INLINE float rms_row(const RmsRow& row, float* y, float eps) {
  const float r = 1.0f / sqrtf(mean_square(row.x, row.cols) + eps);
  map_row(row.cols, [&](auto d, int64_t i, auto part) {
    part.store(hn::Mul(hn::Mul(part.load(d, row.x + i), hn::Set(d, r)), part.load(d, row.w + i)), d, y + i);
  });
  return r;
}

// carry may be nullptr, or dx.
LOWRANK_INLINE void rms_row_grad(const RmsRow& row, float r, const float* dy, const float* carry, float* dx) {
  const float dot = sum_of(row.cols, [&](auto d, int64_t i, auto part) {
    return hn::Mul(hn::Mul(part.load(d, dy + i), part.load(d, row.w + i)), part.load(d, row.x + i));
  });
  const float pull = dot * r * r / static_cast<float>(row.cols);
  map_row(row.cols, [&](auto d, int64_t i, auto part) {
    const auto direct = hn::Mul(part.load(d, dy + i), part.load(d, row.w + i));
    auto v = hn::Mul(hn::NegMulAdd(part.load(d, row.x + i), hn::Set(d, pull), direct), hn::Set(d, r));
    if (carry != nullptr) v = hn::Add(v, part.load(d, carry + i));
    part.store(v, d, dx + i);
  });
}

}  // namespace

}  // namespace lowrank::cpu::LOWRANK_ISA
