#include "rms_row.h"

namespace lowrank::cpu::LOWRANK_ISA {

namespace {

// The value heads of a row, which pass unchanged: a copy of the last G*D numbers.
void copy_value_heads(const Heads& heads, int64_t size, const float* from, float* to) {
  const int64_t start = (heads.query + heads.key_value) * size;
  memcpy(to + start, from + start, static_cast<size_t>(heads.key_value * size) * sizeof(float));
}

}  // namespace

void qk_norm(const QkNorm& op, const Context& context) {
  const int64_t cols = op.x.cols();
  const int64_t size = op.heads.size(op.x);
  const int64_t normed = op.heads.query + op.heads.key_value;
  for_rows(context, op.x.rows(), cols, [&](int64_t row) {
    const float* x = op.x.f32() + row * cols;
    float* y = op.y.f32() + row * cols;
    for (int64_t head = 0; head < normed; ++head) {
      const RmsRow in{x + head * size, head < op.heads.query ? op.wq.f32() : op.wk.f32(), size};
      op.r.f32()[row * normed + head] = rms_row(in, y + head * size, op.eps);
    }
    copy_value_heads(op.heads, size, x, y);
  });
}

void qk_norm_grad(const QkNormGrad& op, const Context& context) {
  const int64_t cols = op.x.cols();
  const int64_t size = op.heads.size(op.x);
  const int64_t normed = op.heads.query + op.heads.key_value;
  for_rows(context, op.x.rows(), cols, [&](int64_t row) {
    const float* x = op.x.f32() + row * cols;
    const float* dy = op.dy.f32() + row * cols;
    float* dx = op.dx.f32() + row * cols;
    for (int64_t head = 0; head < normed; ++head) {
      const RmsRow in{x + head * size, head < op.heads.query ? op.wq.f32() : op.wk.f32(), size};
      rms_row_grad(in, op.r.f32()[row * normed + head], dy + head * size, nullptr, dx + head * size);
    }
    copy_value_heads(op.heads, size, dy, dx);
  });
}

}  // namespace lowrank::cpu::LOWRANK_ISA
