#include "rows.h"

namespace lowrank::cpu::LOWRANK_ISA {

namespace {

// Angles are the outer loop: a vector of cos and sin is read once and turns that part of every head.
template <class Part>
LOWRANK_INLINE void turn_heads(float* x, float* end, int64_t size, const float* cos_sin, int64_t half, float direction, Part part) {
  const RowTag d;
  const auto c = part.load(d, cos_sin), s = hn::Mul(part.load(d, cos_sin + half), hn::Set(d, direction));
  for (float* head = x; head < end; head += size) {
    const auto a = part.load(d, head), b = part.load(d, head + half);
    part.store(hn::NegMulAdd(b, s, hn::Mul(a, c)), d, head);
    part.store(hn::MulAdd(a, s, hn::Mul(b, c)), d, head + half);
  }
}

// Two whole vectors, `apart` less than a vector: the second ends where the half does. Both are read before one is written.
LOWRANK_INLINE void turn_overlapping(float* x, float* end, int64_t size, const float* cos_sin, int64_t half, float direction, int64_t apart) {
  const RowTag d;
  const auto sign = hn::Set(d, direction);
  const auto c0 = hn::LoadU(d, cos_sin), s0 = hn::Mul(hn::LoadU(d, cos_sin + half), sign);
  const auto c1 = hn::LoadU(d, cos_sin + apart), s1 = hn::Mul(hn::LoadU(d, cos_sin + apart + half), sign);
  for (float* head = x; head < end; head += size) {
    const auto a0 = hn::LoadU(d, head), b0 = hn::LoadU(d, head + half), a1 = hn::LoadU(d, head + apart), b1 = hn::LoadU(d, head + apart + half);
    hn::StoreU(hn::NegMulAdd(b0, s0, hn::Mul(a0, c0)), d, head);
    hn::StoreU(hn::NegMulAdd(b1, s1, hn::Mul(a1, c1)), d, head + apart);
    hn::StoreU(hn::MulAdd(a0, s0, hn::Mul(b0, c0)), d, head + half);
    hn::StoreU(hn::MulAdd(a1, s1, hn::Mul(b1, c1)), d, head + apart + half);
  }
}

void turn_row(float* x, int64_t heads, int64_t size, const float* cos_sin, int64_t half, float direction) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(RowTag()));
  float* end = x + heads * size;
  int64_t i = 0;
  for (; i + 2 * lanes <= half || i + lanes == half; i += lanes) turn_heads(x + i, end, size, cos_sin + i, half, direction, Whole{});
  if (i + lanes < half) return turn_overlapping(x + i, end, size, cos_sin + i, half, direction, half - lanes - i);
  if (i < half) turn_heads(x + i, end, size, cos_sin + i, half, direction, Ragged{half - i});
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
