#include "kernels.h"
#include "lora/halves.h"
#include "product.h"

namespace lowrank::cuda {

namespace {

// Part i of a joined projection: where it begins in the columns of y, in the ranks, in the flat B, and its sizes.
struct Part {
  int i;
  int64_t column, rank0, b0, out, rank;
};

// body(part) for each part, those without an adapter too.
template <class Body>
void for_parts(const Weight& w, const LoraParts& parts, const Body& body) {
  Part part{};
  for (part.i = 0; part.i < w.parts; ++part.i) {
    part.out = w.out[part.i], part.rank = parts.rank[part.i];
    body(part);
    part.column += part.out, part.rank0 += part.rank, part.b0 += part.out * part.rank;
  }
}

void mask(Queue& queue, Term& term, MaskOn on, const LoraParts& parts, int part, int64_t pitch) {
  if (parts.threshold() == 0) return;
  term.mask_on = on, term.mask_pitch = pitch, term.mask = dropout_of(parts, part, queue.step_at());
}

// u_i = s_i xhat_i A_i^T
Product make_u(Queue& queue, const LoraLinear& op, const Part& part) {
  Product product;
  product.m = op.x.rows(), product.n = part.rank;
  Term& term = product.add(straight(op.x.f32(), op.w.in), across(op.a.f32() + part.rank0 * op.w.in, op.w.in), op.w.in);
  mask(queue, term, MaskOn::left, op.parts, part.i, op.w.in);
  product.scale = op.parts.scale[part.i];
  product.c = op.u.f32() + part.rank0, product.c_row = op.parts.ranks();
  return product;
}

// y_i = x W_i^T + u_i B_i^T + bias_i + carry_i
Product make_y(const LoraLinear& op, const Part& part) {
  Product product;
  product.m = op.x.rows(), product.n = part.out;
  product.add(straight(op.x.f32(), op.w.in), weight_across(op.w, part.i), op.w.in);
  if (part.rank > 0) product.add(straight(op.u.f32() + part.rank0, op.parts.ranks()), across(op.b.f32() + part.b0, part.rank), part.rank);
  if (op.bias.given()) product.bias = op.bias.f32() + part.column;
  if (op.carry.given()) product.carry = op.carry.f32() + part.column;
  product.c = op.y.f32() + part.column, product.c_row = op.w.rows();
  return product;
}

// v_i = s_i dy_i B_i
Product make_v(const LoraLinearGrad& op, const Part& part, float* v) {
  Product product;
  product.m = op.x.rows(), product.n = part.rank;
  product.add(straight(op.dy.f32() + part.column, op.w.rows()), straight(op.b.f32() + part.b0, part.rank), part.out);
  product.scale = op.parts.scale[part.i];
  product.c = v + part.rank0, product.c_row = op.parts.ranks();
  return product;
}

// dx = sum of dy_i W_i + mask_i (v_i A_i) / (1 - p)
Product make_dx(Queue& queue, const LoraLinearGrad& op, const float* v) {
  Product product;
  product.m = op.x.rows(), product.n = op.w.in;
  for_parts(op.w, op.parts, [&](const Part& part) {
    product.add(straight(op.dy.f32() + part.column, op.w.rows()), weight_straight(op.w, part.i), part.out);
    if (part.rank == 0) return;
    Term& term = product.add(straight(v + part.rank0, op.parts.ranks()), straight(op.a.f32() + part.rank0 * op.w.in, op.w.in), part.rank);
    mask(queue, term, MaskOn::result, op.parts, part.i, op.w.in);
  });
  product.c = op.dx.f32(), product.c_row = op.w.in;
  return product;
}

// dA_i += v_i^T xhat_i
Product make_da(Queue& queue, const LoraLinearGrad& op, const Part& part, const float* v) {
  Product product;
  product.m = part.rank, product.n = op.w.in;
  Term& term = product.add(across(v + part.rank0, op.parts.ranks()), straight(op.x.f32(), op.w.in), op.x.rows());
  mask(queue, term, MaskOn::right, op.parts, part.i, op.w.in);
  product.c = op.da.f32() + part.rank0 * op.w.in, product.c_row = op.w.in;
  product.start = Start::add;
  return product;
}

// dB_i += dy_i^T u_i
Product make_db(const LoraLinearGrad& op, const Part& part) {
  Product product;
  product.m = part.out, product.n = part.rank;
  product.add(across(op.dy.f32() + part.column, op.w.rows()), straight(op.u.f32() + part.rank0, op.parts.ranks()), op.x.rows());
  product.c = op.db.f32() + part.b0, product.c_row = part.rank;
  product.start = Start::add;
  return product;
}

}  // namespace

void lora_linear(const LoraLinear& op, Queue& queue) {
  if (op.x.dtype != DType::f32) return lora_linear_halves(queue, op);
  for_parts(op.w, op.parts, [&](const Part& part) {
    multiply(queue, make_u(queue, op, part));
    multiply(queue, make_y(op, part));
  });
}

void lora_linear_grad(const LoraLinearGrad& op, Queue& queue) {
  if (op.x.dtype != DType::f32) return lora_linear_grad_halves(queue, op);
  auto* v = queue.scratch_for<float>(op.x.rows() * op.parts.ranks());
  if (v == nullptr) return;
  for_parts(op.w, op.parts, [&](const Part& part) {
    if (part.rank == 0) return;
    multiply(queue, make_v(op, part, v));
    multiply_long(queue, make_da(queue, op, part, v));
    multiply_long(queue, make_db(op, part));
  });
  if (op.dx.given()) multiply(queue, make_dx(queue, op, v));
}

}  // namespace lowrank::cuda
