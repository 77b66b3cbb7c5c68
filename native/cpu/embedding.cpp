#include "rows.h"

namespace lowrank::cpu::LOWRANK_ISA {

namespace {

// All of them, before anything is written. `what` is id or position.
bool in_range(const Context& context, const char* what, const Tensor& indices, int64_t rows) {
  for (int64_t row = 0; row < indices.count(); ++row) {
    const int32_t index = indices.i32()[row];
    if (index >= 0 && index < rows) continue;
    context.fail(context.self, "ERR_RANGE", "embedding: %s %d at row %lld is outside [0, %lld)", what, index,
                 static_cast<long long>(row), static_cast<long long>(rows));
    return false;
  }
  return true;
}

template <class T>
void look_up(const Embedding& op, const Context& context) {
  const int64_t cols = op.y.cols();
  for_rows(context, op.y.rows(), cols, [&](int64_t row) {
    const T* from = op.table.as<T>() + op.ids.i32()[row] * cols;
    float* y = op.y.f32() + row * cols;
    map_row(cols, [&](auto d, int64_t i, auto part) { part.store(part.load(d, from + i), d, y + i); });
  });
}

template <class T, class P>
void look_up_both(const Embedding& op, const Context& context) {
  const int64_t cols = op.y.cols();
  for_rows(context, op.y.rows(), cols, [&](int64_t row) {
    const T* from = op.table.as<T>() + op.ids.i32()[row] * cols;
    const P* position = op.position_table.as<P>() + op.positions.i32()[row] * cols;
    float* y = op.y.f32() + row * cols;
    map_row(cols, [&](auto d, int64_t i, auto part) {
      part.store(hn::Add(part.load(d, from + i), part.load(d, position + i)), d, y + i);
    });
  });
}

}  // namespace

void embedding(const Embedding& op, const Context& context) {
  if (!in_range(context, "id", op.ids, op.table.rows())) return;
  if (op.positions.given() && !in_range(context, "position", op.positions, op.position_table.rows())) return;
  with_float_type(op.table.dtype, [&](auto table) {
    using T = typename decltype(table)::Stored;
    if (!op.positions.given()) return look_up<T>(op, context);
    with_float_type(op.position_table.dtype, [&](auto position_table) {
      look_up_both<T, typename decltype(position_table)::Stored>(op, context);
    });
  });
}

}  // namespace lowrank::cpu::LOWRANK_ISA
