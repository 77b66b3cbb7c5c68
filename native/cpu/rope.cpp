#include "rows.h"

namespace lowrank::cpu::LOWRANK_ISA {

namespace {

// Angles are the outer loop: a vector of cos and sin is read once and turns that part of every head.
void turn_row(float* x, int64_t heads, int64_t size, const float* cos_sin, int64_t half, float direction) {
  map_row(half, [&](auto d, int64_t i, auto part) {
    const auto c = part.load(d, cos_sin + i);
    const auto s = hn::Mul(part.load(d, cos_sin + half + i), hn::Set(d, direction));
    for (float* head = x; head < x + heads * size; head += size) {
      const auto a = part.load(d, head + i);
      const auto b = part.load(d, head + half + i);
      part.store(hn::NegMulAdd(b, s, hn::Mul(a, c)), d, head + i);
      part.store(hn::MulAdd(a, s, hn::Mul(b, c)), d, head + half + i);
    }
  });
}

bool positions_in_range(const RopeInplace& op, const Context& context) {
  for (int64_t row = 0; row < op.positions.count(); ++row) {
    const int32_t position = op.positions.i32()[row];
    if (position >= 0 && position < op.table.rows()) continue;
    context.fail(context.self, "ERR_RANGE", "rope_inplace: position %d at row %lld is outside [0, %lld)", position,
                 static_cast<long long>(row), static_cast<long long>(op.table.rows()));
    return false;
  }
  return true;
}

}  // namespace

void rope_inplace(const RopeInplace& op, const Context& context) {
  if (!positions_in_range(op, context)) return;
  const int64_t cols = op.x.cols();
  const int64_t turned = op.table.cols();
  const int64_t heads = op.heads.query + op.heads.key_value;
  for_rows(context, op.x.rows(), cols, [&](int64_t row) {
    const float* cos_sin = op.table.f32() + op.positions.i32()[row] * turned;
    turn_row(op.x.f32() + row * cols, heads, op.heads.size(op.x), cos_sin, turned / 2, op.direction);
  });
}

}  // namespace lowrank::cpu::LOWRANK_ISA
