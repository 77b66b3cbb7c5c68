#include <math.h>

#include "rows.h"

namespace lowrank::cpu::LOWRANK_ISA {

namespace {

// The sum is kept in f32 lanes: C/lanes additions each, so the error grows with C/16, not with C.
float mean_square(const float* x, int64_t cols) {
  return sum_of(cols, [x](auto d, int64_t i, auto part) {
    const auto v = part.load(d, x + i);
    return hn::Mul(v, v);
  }) / static_cast<float>(cols);
}

}  // namespace

void rms_norm(const RmsNorm& op, const Context& context) {
  const int64_t cols = op.x.cols();
  const float* w = op.w.f32();
  for_rows(context, op.x.rows(), cols, [&](int64_t row) {
    const float* x = op.x.f32() + row * cols;
    float* y = op.y.f32() + row * cols;
    const float r = 1.0f / sqrtf(mean_square(x, cols) + op.eps);
    op.r.f32()[row] = r;
    map_row(cols, [&](auto d, int64_t i, auto part) {
      part.store(hn::Mul(hn::Mul(part.load(d, x + i), hn::Set(d, r)), part.load(d, w + i)), d, y + i);
    });
  });
}

void rms_norm_grad(const RmsNormGrad& op, const Context& context) {
  const int64_t cols = op.x.cols();
  const float* w = op.w.f32();
  for_rows(context, op.x.rows(), cols, [&](int64_t row) {
    const float* x = op.x.f32() + row * cols;
    const float* dy = op.dy.f32() + row * cols;
    const float* carry = op.carry.given() ? op.carry.f32() + row * cols : nullptr;
    float* dx = op.dx.f32() + row * cols;
    const float r = op.r.f32()[row];
    const float dot = sum_of(cols, [&](auto d, int64_t i, auto part) {
      return hn::Mul(hn::Mul(part.load(d, dy + i), part.load(d, w + i)), part.load(d, x + i));
    });
    const float pull = dot * r * r / static_cast<float>(cols);
    map_row(cols, [&](auto d, int64_t i, auto part) {
      const auto direct = hn::Mul(part.load(d, dy + i), part.load(d, w + i));
      auto v = hn::Mul(hn::NegMulAdd(part.load(d, x + i), hn::Set(d, pull), direct), hn::Set(d, r));
      if (carry != nullptr) v = hn::Add(v, part.load(d, carry + i));
      part.store(v, d, dx + i);
    });
  });
}

}  // namespace lowrank::cpu::LOWRANK_ISA
