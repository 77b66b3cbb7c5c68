#include "rms_row.h"

namespace lowrank::cpu::LOWRANK_ISA {

void rms_norm(const RmsNorm& op, const Context& context) {
  const int64_t cols = op.x.cols();
  for_rows(context, op.x.rows(), cols, [&](int64_t row) {
    const RmsRow in{op.x.f32() + row * cols, op.w.f32(), cols};
    op.r.f32()[row] = rms_row(in, op.y.f32() + row * cols, op.eps);
  });
}

void rms_norm_grad(const RmsNormGrad& op, const Context& context) {
  const int64_t cols = op.x.cols();
  for_rows(context, op.x.rows(), cols, [&](int64_t row) {
    const RmsRow in{op.x.f32() + row * cols, op.w.f32(), cols};
    const float* carry = op.carry.given() ? op.carry.f32() + row * cols : nullptr;
    rms_row_grad(in, op.r.f32()[row], op.dy.f32() + row * cols, carry, op.dx.f32() + row * cols);
  });
}

}  // namespace lowrank::cpu::LOWRANK_ISA
