#include <math.h>

#include "rows.h"

namespace lowrank::cpu::LOWRANK_ISA {

namespace {

float mean_of(const float* x, int64_t cols) {
  return sum_of(cols, [x](auto d, int64_t i, auto part) { return part.load(d, x + i); }) / static_cast<float>(cols);
}

// From the centred row: mean(x^2) - mean^2 would lose the digits in which the two agree.
float variance_of(const float* x, float mean, int64_t cols) {
  return sum_of(cols, [x, mean](auto d, int64_t i, auto part) {
    const auto v = hn::Sub(part.load(d, x + i), hn::Set(d, mean));
    return hn::Mul(v, v);
  }) / static_cast<float>(cols);
}

}  // namespace

void layer_norm(const LayerNorm& op, const Context& context) {
  const int64_t cols = op.x.cols();
  const float* w = op.w.f32();
  const float* b = op.b.f32();
  for_rows(context, op.x.rows(), cols, [&](int64_t row) {
    const float* x = op.x.f32() + row * cols;
    float* y = op.y.f32() + row * cols;
    const float mean = mean_of(x, cols);
    const float r = 1.0f / sqrtf(variance_of(x, mean, cols) + op.eps);
    op.mean.f32()[row] = mean;
    op.r.f32()[row] = r;
    map_row(cols, [&](auto d, int64_t i, auto part) {
      const auto z = hn::Mul(hn::Sub(part.load(d, x + i), hn::Set(d, mean)), hn::Set(d, r));
      part.store(hn::MulAdd(z, part.load(d, w + i), part.load(d, b + i)), d, y + i);
    });
  });
}

void layer_norm_grad(const LayerNormGrad& op, const Context& context) {
  const int64_t cols = op.x.cols();
  const float* w = op.w.f32();
  for_rows(context, op.x.rows(), cols, [&](int64_t row) {
    const float* x = op.x.f32() + row * cols;
    const float* dy = op.dy.f32() + row * cols;
    const float* carry = op.carry.given() ? op.carry.f32() + row * cols : nullptr;
    float* dx = op.dx.f32() + row * cols;
    const float mean = op.mean.f32()[row];
    const float r = op.r.f32()[row];
    // Sums of g and of g (x - mean).
    const TwoSums sums = two_sums_of(cols, [&](auto d, int64_t i, auto part) {
      const auto g = hn::Mul(part.load(d, dy + i), part.load(d, w + i));
      return TwoTerms<hn::Vec<decltype(d)>>{g, hn::Mul(g, hn::Sub(part.load(d, x + i), hn::Set(d, mean)))};
    });
    const float shift = sums.first / static_cast<float>(cols);
    const float pull = sums.second * r * r / static_cast<float>(cols);
    map_row(cols, [&](auto d, int64_t i, auto part) {
      const auto g = hn::Mul(part.load(d, dy + i), part.load(d, w + i));
      const auto centred = hn::Sub(part.load(d, x + i), hn::Set(d, mean));
      auto v = hn::Mul(hn::NegMulAdd(centred, hn::Set(d, pull), hn::Sub(g, hn::Set(d, shift))), hn::Set(d, r));
      if (carry != nullptr) v = hn::Add(v, part.load(d, carry + i));
      part.store(v, d, dx + i);
    });
  });
}

}  // namespace lowrank::cpu::LOWRANK_ISA
