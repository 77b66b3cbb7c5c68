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

void multiply_in_borders(Queue& queue, const Extended& p, const Frozen& w, Lie lie, int32_t copies, bool bias) {
  const Halves& matrix = w.at[0];
  const int64_t ranks = p.parts.ranks(), columns = columns_of(p);
  Gemm g = product_of(p, lie, 0, columns);
  if (ranks == 0 && !bias) {
    g.add(p.left.data, p.left.pitch, matrix.data, matrix.pitch, p.deep);
    return gemm(queue, g);
  }
  // A product more would cost a pass over C as well, and leave there in 16 bits what it gives.
  const Halves left = p.left.bordered ? p.left : halves_of(queue, {p.left.data, p.dtype, p.rows, p.deep, p.left.pitch}, p.dtype, kBorder);
  if (left.data == nullptr) return;
  if (p.lender != nullptr) declare_border(*p.lender, kBorder);
  declare_border(*p.w);
  // Borders belong to whoever is running: nobody's numbers lie there from one op to the next.
  void* right_border = const_cast<void*>(elements_from(matrix.data, lie == Lie::columns ? p.deep : p.deep * matrix.pitch));
  void* left_border = const_cast<void*>(elements_from(left.data, p.deep));
  spread(queue, {of_rows(p, left_border, left.pitch, left_slots(kBorder, copies, bias)),
                 of_columns(p, right_border, matrix.pitch, lie, 0, columns, right_slots(kBorder, copies, bias ? p.bias : nullptr))});
  if (bias) g.bias = nullptr;
  g.add(left.data, left.pitch, matrix.data, matrix.pitch, p.deep + kBorder);
  gemm(queue, g);
}

// What extends the left factor, in a matrix of its own; width 0: nothing does.
struct Side {
  void* data = nullptr;
  int64_t width = 0;
};

Side left_side(Queue& queue, const Extended& p) {
  Side side;
  side.width = whole_pieces(kMostCopies * p.parts.ranks());
  if (side.width == 0) return side;
  side.data = queue.scratch_for<uint16_t>(p.rows * side.width);
  if (side.data != nullptr) spread(queue, {of_rows(p, side.data, side.width, left_slots(static_cast<int32_t>(side.width), kMostCopies, false))});
  return side;
}

// Adds the extension as a term of its own. False: the op has been failed.
bool add_side(Queue& queue, const Extended& p, const Side& left, Gemm& g, int64_t column) {
  if (left.width == 0) return true;
  const int64_t pitch = g.b_lie == Lie::columns ? left.width : whole_pieces(g.n);
  auto* right = queue.scratch_for<uint16_t>(g.b_lie == Lie::columns ? g.n * pitch : left.width * pitch);
  if (left.data == nullptr || right == nullptr) return false;
  spread(queue, {of_columns(p, right, pitch, g.b_lie, column, g.n, right_slots(static_cast<int32_t>(left.width), kMostCopies, nullptr))});
  g.add(left.data, left.width, right, pitch, left.width);
  return true;
}

// Forward with a matrix for each part: each makes its own columns of C.
void multiply_part(Queue& queue, const Extended& p, const Frozen& w, const Side& side, int i, int64_t column) {
  Gemm g = product_of(p, w.forward, column, p.w->out[i]);
  g.add(p.left.data, p.left.pitch, w.at[i].data, w.at[i].pitch, p.deep);
  if (add_side(queue, p, side, g, column)) gemm(queue, g);
}

// Backward with a matrix for each part: all add to all of C.
void multiply_parts_back(Queue& queue, const Extended& p, const Frozen& w, const Side& side) {
  Gemm g = product_of(p, w.backward(), 0, p.w->in);
  int64_t column = 0;
  for (int i = 0; i < w.count; column += p.w->out[i++]) {
    const Halves left = halves_of(queue, {elements_from(p.left.data, column), p.dtype, p.rows, p.w->out[i], p.left.pitch}, p.dtype);
    if (left.data == nullptr) return;
    g.add(left.data, left.pitch, w.at[i].data, w.at[i].pitch, p.w->out[i]);
  }
  if (add_side(queue, p, side, g, 0)) gemm(queue, g);
}

void multiply_beside(Queue& queue, const Extended& p, const Frozen& w) {
  const Side side = left_side(queue, p);
  if (w.count == 1) {
    Gemm g = product_of(p, p.forward ? w.forward : w.backward(), 0, columns_of(p));
    g.add(p.left.data, p.left.pitch, w.at[0].data, w.at[0].pitch, p.deep);
    if (add_side(queue, p, side, g, 0)) gemm(queue, g);
  } else if (p.forward) {
    int64_t column = 0;
    for (int i = 0; i < w.count; column += p.w->out[i++]) multiply_part(queue, p, w, side, i, column);
  } else {
    multiply_parts_back(queue, p, w, side);
  }
}

}  // namespace

void multiply_extended(Queue& queue, const Extended& p) {
  if (p.rows == 0) return;
  const Frozen w = frozen_of(queue, *p.w, p.dtype);
  if (!w.good() || p.left.data == nullptr) return;
  const int64_t ranks = p.parts.ranks();
  if (w.bordered() && ranks <= kBorder) {
    const bool bias = p.bias != nullptr && ranks + kBias <= kBorder;
    const int32_t copies = copies_in(ranks, kBorder - (bias ? kBias : 0));
    return multiply_in_borders(queue, p, w, p.forward ? w.forward : w.backward(), copies, bias);
  }
  multiply_beside(queue, p, w);
}

}  // namespace lowrank::cuda
