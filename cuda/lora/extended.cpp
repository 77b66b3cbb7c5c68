#include "extended.h"

#include "../operands.h"

namespace lowrank::cuda {

namespace {

constexpr int32_t kBias = 2;  // slots: high and low

// How often ranks can stand side by side in `room` slots.
int32_t copies_in(int64_t ranks, int64_t room) {
  const int64_t copies = ranks == 0 ? 0 : room / ranks;
  return static_cast<int32_t>(copies < kMostCopies ? copies : kMostCopies);
}

// u high, u low, u high against B high, B high, B low.
Slots left_slots(int32_t count, int32_t copies, bool bias) {
  Slots slots;
  slots.count = count, slots.copies = copies;
  slots.low[1] = true;
  if (bias) slots.then = Slots::Then::ones;
  return slots;
}
Slots right_slots(int32_t count, int32_t copies, const float* bias) {
  Slots slots;
  slots.count = count, slots.copies = copies;
  slots.low[2] = true;
  if (bias != nullptr) slots.then = Slots::Then::bias, slots.bias = bias;
  return slots;
}

Spread of_rows(const Extended& p, void* to, int64_t pitch, const Slots& slots) {
  return {p.dtype, to, pitch, 1, p.rows, 0, p.of_rows, p.parts, slots};
}

// Slots of columns [first, first + count) of C, beside or below the columns' own numbers.
Spread of_columns(const Extended& p, void* to, int64_t pitch, Lie lie, int64_t first, int64_t count, const Slots& slots) {
  const bool beside = lie == Lie::columns;
  return {p.dtype, to, beside ? pitch : 1, beside ? 1 : pitch, count, first, p.of_columns, p.parts, slots};
}

Gemm product_of(const Extended& p, Lie lie, int64_t column, int64_t columns) {
  Gemm g;
  g.dtype = p.dtype, g.b_lie = lie;
  g.m = p.rows, g.n = columns;
  g.c = elements_from(p.c, column), g.c_pitch = p.c_pitch;
  if (p.carry != nullptr) g.carry = elements_from(p.carry, column), g.carry_pitch = p.carry_pitch;
  if (p.bias != nullptr) g.bias = p.bias + column;
  return g;
}

int64_t columns_of(const Extended& p) { return p.forward ? p.w->rows() : p.w->in; }

Lie lie_of(const Extended& p, const Frozen& w) { return p.forward ? w.forward : w.backward(); }

// Borders belong to whoever is running: nobody's numbers lie there from one op to the next. A left factor without one will be copied: a product
// more would cost a pass over C as well, and leave there in 16 bits what it gives. False: the op has been failed.
bool lay_in_borders(Queue& queue, const Extended& p, Extension& e) {
  const Halves& matrix = e.w.at[0];
  const int64_t ranks = p.parts.ranks();
  const Lie lie = lie_of(p, e.w);
  e.in_borders = true, e.with_bias = p.bias != nullptr && ranks + kBias <= kBorder;
  e.left = p.left;
  if (ranks == 0 && !e.with_bias) return true;
  if (!p.left.bordered) e.left = bordered_room(queue, p.rows, p.deep);
  if (p.lender != nullptr) declare_border(*p.lender, kBorder);
  declare_border(*p.w);
  const int32_t copies = copies_in(ranks, kBorder - (e.with_bias ? kBias : 0));
  void* right_border = const_cast<void*>(elements_from(matrix.data, lie == Lie::columns ? p.deep : p.deep * matrix.pitch));
  void* left_border = const_cast<void*>(elements_from(e.left.data, p.deep));
  e.of_rows = of_rows(p, left_border, e.left.pitch, left_slots(kBorder, copies, e.with_bias));
  e.of_columns = of_columns(p, right_border, matrix.pitch, lie, 0, columns_of(p), right_slots(kBorder, copies, e.with_bias ? p.bias : nullptr));
  return e.left.data != nullptr;
}

// The left factor's in a matrix of its own; what extends the right one differs from part to part. False: the op has been failed.
bool lay_beside(Queue& queue, const Extended& p, Extension& e) {
  const int64_t width = whole_pieces(kMostCopies * p.parts.ranks());
  if (width == 0) return true;
  auto* side = queue.scratch_for<uint16_t>(p.rows * width);
  e.of_rows = of_rows(p, side, width, left_slots(static_cast<int32_t>(width), kMostCopies, false));
  return side != nullptr;
}

void multiply_in_borders(Queue& queue, const Extended& p, const Extension& e) {
  const Halves& matrix = e.w.at[0];
  Gemm g = product_of(p, lie_of(p, e.w), 0, columns_of(p));
  if (e.with_bias) g.bias = nullptr;
  if (e.left.data != p.left.data) copy_into(queue, e.left, {p.left.data, p.dtype, p.rows, p.deep, p.left.pitch}, p.dtype);
  g.add(e.left.data, e.left.pitch, matrix.data, matrix.pitch, p.deep + (e.of_rows.to == nullptr ? 0 : kBorder));
  gemm(queue, g);
}

// Adds the extension as a term of its own. False: the op has been failed.
bool add_side(Queue& queue, const Extended& p, const Spread& left, Gemm& g, int64_t column) {
  if (left.to == nullptr) return true;
  const int64_t width = left.value_pitch, pitch = g.b_lie == Lie::columns ? width : whole_pieces(g.n);
  auto* right = queue.scratch_for<uint16_t>(g.b_lie == Lie::columns ? g.n * pitch : width * pitch);
  if (right == nullptr) return false;
  spread(queue, {of_columns(p, right, pitch, g.b_lie, column, g.n, right_slots(static_cast<int32_t>(width), kMostCopies, nullptr))});
  g.add(left.to, width, right, pitch, width);
  return true;
}

// Forward with a matrix for each part: each makes its own columns of C.
void multiply_part(Queue& queue, const Extended& p, const Extension& e, int i, int64_t column) {
  Gemm g = product_of(p, e.w.forward, column, p.w->out[i]);
  g.add(p.left.data, p.left.pitch, e.w.at[i].data, e.w.at[i].pitch, p.deep);
  if (add_side(queue, p, e.of_rows, g, column)) gemm(queue, g);
}

// Backward with a matrix for each part: all add to all of C.
void multiply_parts_back(Queue& queue, const Extended& p, const Extension& e) {
  Gemm g = product_of(p, e.w.backward(), 0, p.w->in);
  int64_t column = 0;
  for (int i = 0; i < e.w.count; column += p.w->out[i++]) {
    const Halves left = halves_of(queue, {elements_from(p.left.data, column), p.dtype, p.rows, p.w->out[i], p.left.pitch}, p.dtype);
    if (left.data == nullptr) return;
    g.add(left.data, left.pitch, e.w.at[i].data, e.w.at[i].pitch, p.w->out[i]);
  }
  if (add_side(queue, p, e.of_rows, g, 0)) gemm(queue, g);
}

void multiply_beside(Queue& queue, const Extended& p, const Extension& e) {
  if (e.w.count == 1) {
    Gemm g = product_of(p, lie_of(p, e.w), 0, columns_of(p));
    g.add(p.left.data, p.left.pitch, e.w.at[0].data, e.w.at[0].pitch, p.deep);
    if (add_side(queue, p, e.of_rows, g, 0)) gemm(queue, g);
  } else if (p.forward) {
    int64_t column = 0;
    for (int i = 0; i < e.w.count; column += p.w->out[i++]) multiply_part(queue, p, e, i, column);
  } else {
    multiply_parts_back(queue, p, e);
  }
}

}  // namespace

Extension extension_of(Queue& queue, const Extended& p) {
  Extension e;
  e.w = frozen_of(queue, *p.w, p.dtype);
  if (!e.w.good() || p.left.data == nullptr) return e;
  e.good = e.w.bordered() && p.parts.ranks() <= kBorder ? lay_in_borders(queue, p, e) : lay_beside(queue, p, e);
  return e;
}

void multiply_extended(Queue& queue, const Extended& p, const Extension& e) {
  if (p.rows == 0) return;
  if (e.in_borders) multiply_in_borders(queue, p, e);
  else multiply_beside(queue, p, e);
}

void multiply_extended(Queue& queue, const Extended& p) {
  if (p.rows == 0) return;
  const Extension e = extension_of(queue, p);
  if (!e.good) return;
  spread(queue, {e.of_rows, e.of_columns});
  multiply_extended(queue, p, e);
}

}  // namespace lowrank::cuda
