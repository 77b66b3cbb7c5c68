#include <math.h>

#include "rows.h"

namespace lowrank::cpu::LOWRANK_ISA {

namespace {

double sum_squares_of(const float* x, int64_t count) {
  const hn::ScalableTag<double> d;
  const hn::Rebind<float, decltype(d)> narrow;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  auto s0 = hn::Zero(d), s1 = s0, s2 = s0, s3 = s0;
  const auto at = [&](int64_t i) { return hn::PromoteTo(d, hn::LoadU(narrow, x + i)); };
  int64_t i = 0;
  for (; i + 4 * lanes <= count; i += 4 * lanes) {
    const auto v0 = at(i), v1 = at(i + lanes), v2 = at(i + 2 * lanes), v3 = at(i + 3 * lanes);
    s0 = hn::MulAdd(v0, v0, s0);
    s1 = hn::MulAdd(v1, v1, s1);
    s2 = hn::MulAdd(v2, v2, s2);
    s3 = hn::MulAdd(v3, v3, s3);
  }
  double sum = hn::GetLane(hn::SumOfLanes(d, hn::Add(hn::Add(s0, s1), hn::Add(s2, s3))));
  for (; i < count; ++i) sum += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  return sum;
}

struct Passed {
  bool open;
  float scale;  // of the gradient
};

Passed pass(const Gate& gate) {
  const double squares = static_cast<double>(gate.sum_squares.f32()[0]);
  if (!__builtin_isfinite(squares)) return {false, 0.0f};
  for (int64_t i = 0; i < gate.losses.count(); ++i)
    if (!__builtin_isfinite(gate.losses.f32()[i])) return {false, 0.0f};
  const double unscale = gate.unscale();
  const double ratio = gate.clip == 0.0f ? 1.0 : static_cast<double>(gate.clip) / (sqrt(squares) * unscale + 1e-6);
  return {true, static_cast<float>((ratio < 1.0 ? ratio : 1.0) * unscale)};
}

// 1 - beta. A beta is a short decimal; its f32 is off by up to 3e-8, which is 1.3e-5 of 1 - 0.999. So the decimal is restored first.
float complement(float beta) {
  return static_cast<float>(1.0 - nearbyint(static_cast<double>(beta) * 1e7) / 1e7);
}

}  // namespace

void sum_squares(const SumSquares& op, const Context& context) {
  const int64_t count = op.x.count();
  const int64_t tasks = (count + kTaskElements - 1) / kTaskElements;
  double* partial = context.scratch_for<double>(-1, tasks + 1);
  if (partial == nullptr) return;
  for_spans(context, count, kTaskElements, [&](int64_t start, int64_t n) {
    partial[start / kTaskElements] = sum_squares_of(op.x.f32() + start, n);
  });
  double sum = 0;
  for (int64_t task = 0; task < tasks; ++task) sum += partial[task];
  op.sum.f32()[0] = static_cast<float>(sum);
}

void adamw(const Adamw& op, const Context& context) {
  const Passed passed = pass(op.gate);
  if (!passed.open) return;
  const float keep = static_cast<float>(1.0 - static_cast<double>(op.lr) * static_cast<double>(op.weight_decay));
  const float step = static_cast<float>(static_cast<double>(op.lr) / static_cast<double>(op.correction1));
  const float unbias = static_cast<float>(1.0 / sqrt(static_cast<double>(op.correction2)));
  const float fresh1 = complement(op.beta1), fresh2 = complement(op.beta2);
  for_spans(context, op.p.count(), kTaskElements, [&](int64_t start, int64_t count) {
    float* p = op.p.f32() + start;
    float* m = op.m.f32() + start;
    float* v = op.v.f32() + start;
    const float* g = op.g.f32() + start;
    map_row(count, [&](auto d, int64_t i, auto part) {
      const auto grad = hn::Mul(part.load(d, g + i), hn::Set(d, passed.scale));
      const auto m_old = part.load(d, m + i);
      const auto m_new = hn::MulAdd(hn::Set(d, fresh1), hn::Sub(grad, m_old), m_old);
      const auto v_new = hn::MulAdd(hn::Mul(grad, grad), hn::Set(d, fresh2), hn::Mul(part.load(d, v + i), hn::Set(d, op.beta2)));
      const auto width = hn::MulAdd(hn::Sqrt(v_new), hn::Set(d, unbias), hn::Set(d, op.eps));
      const auto decayed = hn::Mul(part.load(d, p + i), hn::Set(d, keep));
      part.store(m_new, d, m + i);
      part.store(v_new, d, v + i);
      part.store(hn::NegMulAdd(hn::Set(d, step), hn::Div(m_new, width), decayed), d, p + i);
    });
  });
}

void sgd(const Sgd& op, const Context& context) {
  const Passed passed = pass(op.gate);
  if (!passed.open) return;
  const bool carries = op.momentum != 0.0f;
  for_spans(context, op.p.count(), kTaskElements, [&](int64_t start, int64_t count) {
    float* p = op.p.f32() + start;
    float* buffer = carries ? op.buffer.f32() + start : nullptr;
    const float* g = op.g.f32() + start;
    map_row(count, [&](auto d, int64_t i, auto part) {
      const auto old = part.load(d, p + i);
      const auto scaled = hn::Mul(part.load(d, g + i), hn::Set(d, passed.scale));
      auto move = hn::MulAdd(old, hn::Set(d, op.weight_decay), scaled);
      if (carries) {
        if (op.first == 0) move = hn::MulAdd(part.load(d, buffer + i), hn::Set(d, op.momentum), move);
        part.store(move, d, buffer + i);
      }
      part.store(hn::NegMulAdd(move, hn::Set(d, op.lr), old), d, p + i);
    });
  });
}

}  // namespace lowrank::cpu::LOWRANK_ISA
