#include "halves.h"

#include "extended.h"
#include "masked.h"
#include "skinny_gated.h"

namespace lowrank::cuda {

namespace {

// x or dy as the left factor.
void set_left(Queue& queue, Extended& p, const Tensor& tensor) {
  p.dtype = tensor.dtype, p.rows = tensor.rows(), p.deep = tensor.cols();
  p.left = halves_of(queue, tensor, 0, tensor.cols());
  if (p.left.bordered && p.left.data == tensor.data) p.lender = &tensor;
}

Extended forward_of(Queue& queue, const Tensor& y, const Tensor& x, const Weight& w, const Tensor& bias, const Tensor& carry) {
  Extended p;
  set_left(queue, p, x);
  p.w = &w;
  p.c = y.data, p.c_pitch = y.pitch;
  if (bias.given()) p.bias = bias.f32();
  if (carry.given()) p.carry = carry.data, p.carry_pitch = carry.pitch;
  return p;
}

Extended backward_of(Queue& queue, const Tensor& dx, const Tensor& dy, const Weight& w) {
  Extended p;
  set_left(queue, p, dy);
  p.w = &w, p.forward = false;
  p.c = dx.data, p.c_pitch = dx.pitch;
  return p;
}

Slots both_halves(int64_t padded) {
  Slots slots;
  slots.count = static_cast<int32_t>(2 * padded), slots.copies = 2, slots.padded = true;
  slots.low[1] = true;
  return slots;
}

// High and low halves of `from` [columns] for skinny products by rows: [2 * padded, columns]. Those of u or v [rows, ranks] for skinny
// products by columns: [rows, 2 * padded]. What has no memory is what has failed.
Spread side_of(Queue& queue, Skinny& product, const Ranked& from, int64_t columns) {
  product.side_pitch = whole_pieces(columns);
  auto* side = queue.scratch_for<uint16_t>(2 * product.parts.padded() * product.side_pitch);
  product.side = side;
  return {product.dtype, side, 1, product.side_pitch, columns, 0, from, product.parts, both_halves(product.parts.padded())};
}
Spread tall_of(Queue& queue, Skinny& product, const float* from) {
  const int64_t width = 2 * product.parts.padded();
  auto* tall = queue.scratch_for<uint16_t>(product.rows * width);
  product.tall = tall;
  return {product.dtype, tall, width, 1, product.rows, 0, {from, product.parts.ranks(), 1, false}, product.parts, both_halves(product.parts.padded())};
}

Skinny skinny_of(const Extended& left, const PartList& parts) {
  Skinny product;
  product.dtype = left.dtype;
  product.z = left.left.data, product.z_pitch = left.left.pitch;
  product.rows = left.rows, product.mask_pitch = left.deep;
  product.parts = parts;
  return product;
}

SkinnyRows rows_into(float* out, const LoraParts& parts, float factor) {
  SkinnyRows rows;
  rows.out = out;
  for (int i = 0; i < kMaxParts; ++i) rows.scale[i] = parts.scale[i] * factor;
  return rows;
}

// u = s xhat A^T, and what extends the product for y. `gated`: x is made on the way.
bool make_u(Queue& queue, const LoraLinear& op, const Extended& x, const Extension& extension, const Gated* gated) {
  Skinny product = skinny_of(x, x.parts);
  product.windows = windows_over(queue, x.parts, op.w.in, op.parts);
  const Spread side = side_of(queue, product, {op.a.f32(), 1, op.w.in, false}, op.w.in);
  if (side.to == nullptr) return false;
  spread(queue, {side, extension.of_columns});
  SkinnyRows rows = rows_into(op.u.f32(), op.parts, op.parts.keep());
  rows.also(extension.of_rows);
  if (gated != nullptr) skinny_swiglu(queue, *gated, product, rows);
  else skinny(queue, product, &rows, nullptr);
  return true;
}

// v = s dy B, which is also spread for dA and for dx, and dB += dy^T u, in one pass over dy. `gated`: it is made in this pass.
bool make_v_and_db(Queue& queue, const LoraLinearGrad& op, const Extended& dy, const PartList& parts, float* v, const Spread& for_da, const Extension& for_dx, const Gated* gated) {
  Skinny product = skinny_of(dy, parts);
  product.windows = windows_by_part(parts);
  const Spread side = side_of(queue, product, {op.b.f32(), 0, 0, true}, op.w.rows()), tall = tall_of(queue, product, op.u.f32());
  if (side.to == nullptr || tall.to == nullptr) return false;
  spread(queue, {side, tall, for_dx.of_columns});
  SkinnyRows rows = rows_into(v, op.parts, 1.0f);
  rows.also(for_da), rows.also(for_dx.of_rows);
  SkinnyColumns columns;
  columns.out = op.db.f32(), columns.flat_b = true;
  if (gated != nullptr) skinny_swiglu_grad(queue, *gated, product, rows, columns);
  else skinny(queue, product, &rows, &columns);
  return true;
}

// dA += v^T xhat, of which v is still to be spread: the product, which has the place for it. No place: the op has been failed.
struct AGradient {
  Skinny product;
  Spread tall;
};
AGradient gradient_of_a(Queue& queue, const LoraLinearGrad& op, const PartList& parts, const float* v) {
  Extended x;
  set_left(queue, x, op.x);
  AGradient da{skinny_of(x, parts), {}};
  da.product.windows = windows_over(queue, parts, op.w.in, op.parts);
  if (x.left.data != nullptr) da.tall = tall_of(queue, da.product, v);
  return da;
}

void make_da(Queue& queue, const LoraLinearGrad& op, const AGradient& da) {
  SkinnyColumns columns;
  columns.out = op.da.f32(), columns.rank_pitch = op.w.in, columns.scale = op.parts.keep();
  skinny(queue, da.product, nullptr, &columns);
}

// A mask can't lie on a border: the masked low-rank term is made first, and the product is added to it.
void start_with_masked(Queue& queue, const LoraLinearGrad& op, const PartList& parts, const void* v, Extended& p) {
  MaskedLowRank term{p.dtype, op.dx.data, op.dx.pitch, op.dx.rows(), op.dx.cols(), v, op.a.f32(), parts, {}};
  for (int i = 0; i < kMaxParts; ++i) term.masks[i] = dropout_of(op.parts, i, queue.step_at());
  masked_low_rank(queue, term);
  p.carry = op.dx.data, p.carry_pitch = op.dx.pitch;
}

void forward(Queue& queue, const LoraLinear& op, const Gated* gated) {
  Extended p = forward_of(queue, op.y, op.x, op.w, op.bias, op.carry);
  p.parts = parts_of(op.w, op.parts);
  p.of_rows = {op.u.f32(), op.parts.ranks(), 1, false};
  p.of_columns = {op.b.f32(), 0, 0, true};
  if (p.parts.ranks() == 0) return multiply_extended(queue, p);
  if (p.rows == 0) return;
  const Extension extension = extension_of(queue, p);
  if (extension.good && make_u(queue, op, p, extension, gated)) multiply_extended(queue, p, extension);
}

void backward(Queue& queue, const LoraLinearGrad& op, const Gated* gated) {
  Extended p = backward_of(queue, op.dx, op.dy, op.w);
  const PartList parts = parts_of(op.w, op.parts);
  if (parts.ranks() == 0) return op.dx.given() ? multiply_extended(queue, p) : void();
  auto* v = queue.scratch_for<float>(p.rows * parts.ranks());
  if (p.rows == 0 || p.left.data == nullptr || v == nullptr) return;
  const bool masked = op.parts.threshold() > 0;
  if (!masked) {
    p.parts = parts;
    p.of_rows = {v, parts.ranks(), 1, false};
    p.of_columns = {op.a.f32(), 1, op.w.in, false};
  }
  const Extension extension = op.dx.given() ? extension_of(queue, p) : Extension{};
  if (op.dx.given() && !extension.good) return;
  const AGradient da = gradient_of_a(queue, op, parts, v);
  if (da.tall.to == nullptr || !make_v_and_db(queue, op, p, parts, v, da.tall, extension, gated)) return;
  make_da(queue, op, da);
  if (!op.dx.given()) return;
  if (masked) start_with_masked(queue, op, parts, da.product.tall, p);
  multiply_extended(queue, p, extension);
}

}  // namespace

void linear_halves(Queue& queue, const Linear& op) { multiply_extended(queue, forward_of(queue, op.y, op.x, op.w, op.bias, op.carry)); }

void linear_grad_halves(Queue& queue, const LinearGrad& op) { multiply_extended(queue, backward_of(queue, op.dx, op.dy, op.w)); }

void lora_linear_halves(Queue& queue, const LoraLinear& op) { forward(queue, op, nullptr); }

void lora_linear_grad_halves(Queue& queue, const LoraLinearGrad& op) { backward(queue, op, nullptr); }

bool swiglu_then_lora_linear_halves(Queue& queue, const SwigluThenLoraLinear& op) {
  const Gated gated{op.x.data, op.x.pitch, nullptr, 0, op.h.data, op.h.pitch, op.h.rows(), op.h.cols()};
  if (!can_make_u(gated, parts_of(op.w, op.parts))) return false;
  forward(queue, op.second(), &gated);
  return true;
}

bool swiglu_grad_then_lora_linear_grad_halves(Queue& queue, const SwigluGradThenLoraLinearGrad& op) {
  const Gated gated{op.y.data, op.y.pitch, op.dh.data, op.dh.pitch, op.dy.data, op.dy.pitch, op.dh.rows(), op.dh.cols()};
  if (!can_make_v_and_db(gated, parts_of(op.w, op.parts))) return false;
  backward(queue, op.second(), &gated);
  return true;
}

}  // namespace lowrank::cuda
