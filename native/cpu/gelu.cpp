#include "math.h"
#include "rows.h"

namespace lowrank::cpu::LOWRANK_ISA {

namespace {

// Both forms are x * P(x), P rising from 0 to 1; the slope is P(x) + x P'(x). Outside [-15, 15] P is 0 or 1 and x P' is 0,
// so P is asked there no more: x^2 would be infinite, and infinity times 0 is NaN.
constexpr float kFlat = 15.0f;

struct ByErf {
  template <class D, class V>
  LOWRANK_INLINE static V gate(D d, V x) { return normal_f32(d, x).below; }
  template <class D, class V>
  LOWRANK_INLINE static V slope(D d, V x) {
    const Normal<V> normal = normal_f32(d, x);
    const V z = clamp_f32(d, x, kFlat);
    return hn::MulAdd(hn::Mul(z, hn::Set(d, 0.398942280f)), normal.bell, normal.below);  // 1/sqrt(2 pi)
  }
};

// (1 + tanh(u)) / 2 = sigmoid(2u); this keeps the digits of the lower tail.
struct ByTanh {
  static constexpr float kLinear = 1.59576912f;  // 2 sqrt(2/pi)
  static constexpr float kCubic = 0.0713548163f; // 0.044715 of that

  template <class D, class V>
  LOWRANK_INLINE static V gate_at(D d, V z) {
    const V square = hn::Mul(z, z);
    return sigmoid_f32(d, hn::Mul(z, hn::MulAdd(square, hn::Set(d, kCubic), hn::Set(d, kLinear))));
  }
  template <class D, class V>
  LOWRANK_INLINE static V gate(D d, V x) { return gate_at(d, clamp_f32(d, x, kFlat)); }
  template <class D, class V>
  LOWRANK_INLINE static V slope(D d, V x) {
    const V z = clamp_f32(d, x, kFlat);
    const V q = gate_at(d, z);
    const V inner = hn::MulAdd(hn::Mul(z, z), hn::Set(d, 3 * kCubic), hn::Set(d, kLinear));
    return hn::MulAdd(hn::Mul(hn::Mul(z, inner), q), hn::Sub(hn::Set(d, 1.0f), q), q);
  }
};

template <class Form>
void gelu_of(const Gelu& op, const Context& context) {
  for_spans(context, op.y.count(), kTaskElements, [&](int64_t start, int64_t count) {
    const float* x = op.x.f32() + start;
    float* y = op.y.f32() + start;
    map_row(count, [&](auto d, int64_t i, auto part) {
      const auto v = part.load(d, x + i);
      part.store(hn::Mul(v, Form::gate(d, v)), d, y + i);
    });
  });
}

template <class Form>
void gelu_grad_of(const GeluGrad& op, const Context& context) {
  for_spans(context, op.dx.count(), kTaskElements, [&](int64_t start, int64_t count) {
    const float* x = op.x.f32() + start;
    const float* dy = op.dy.f32() + start;
    float* dx = op.dx.f32() + start;
    map_row(count, [&](auto d, int64_t i, auto part) {
      part.store(hn::Mul(part.load(d, dy + i), Form::slope(d, part.load(d, x + i))), d, dx + i);
    });
  });
}

}  // namespace

void gelu(const Gelu& op, const Context& context) {
  return op.form == 0 ? gelu_of<ByErf>(op, context) : gelu_of<ByTanh>(op, context);
}

void gelu_grad(const GeluGrad& op, const Context& context) {
  return op.form == 0 ? gelu_grad_of<ByErf>(op, context) : gelu_grad_of<ByTanh>(op, context);
}

}  // namespace lowrank::cpu::LOWRANK_ISA
