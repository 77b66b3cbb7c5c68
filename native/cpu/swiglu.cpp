#include "math.h"
#include "rows.h"

namespace lowrank::cpu::LOWRANK_ISA {

void swiglu(const Swiglu& op, const Context& context) {
  const int64_t cols = op.y.cols();
  for_rows(context, op.y.rows(), cols, [&](int64_t row) {
    const float* gate = op.x.f32() + row * 2 * cols;
    const float* up = gate + cols;
    float* y = op.y.f32() + row * cols;
    map_row(cols, [&](auto d, int64_t i, auto part) {
      const auto z = part.load(d, gate + i);
      part.store(hn::Mul(hn::Mul(z, sigmoid_f32(d, z)), part.load(d, up + i)), d, y + i);
    });
  });
}

void swiglu_grad(const SwigluGrad& op, const Context& context) {
  const int64_t cols = op.dy.cols();
  for_rows(context, op.dy.rows(), cols, [&](int64_t row) {
    const float* gate = op.x.f32() + row * 2 * cols;
    const float* up = gate + cols;
    const float* dy = op.dy.f32() + row * cols;
    float* dgate = op.dx.f32() + row * 2 * cols;
    float* dup = dgate + cols;
    map_row(cols, [&](auto d, int64_t i, auto part) {
      const auto z = part.load(d, gate + i);
      const auto u = part.load(d, up + i);
      const auto q = sigmoid_f32(d, z);
      const auto one = hn::Set(d, 1.0f);
      const auto pull = hn::Mul(part.load(d, dy + i), q);
      part.store(hn::Mul(hn::Mul(pull, u), hn::MulAdd(z, hn::Sub(one, q), one)), d, dgate + i);
      part.store(hn::Mul(pull, z), d, dup + i);
    });
  });
}

}  // namespace lowrank::cpu::LOWRANK_ISA
