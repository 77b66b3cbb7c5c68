#include "gemm/gemm.h"
#include "gemm/gemv.h"

namespace lowrank::cpu::LOWRANK_ISA {

namespace {

void linear_few(const Linear& op, const Context& context) {
  Gemv gemvs[kMaxParts];
  for (int64_t i = 0, n0 = 0; i < op.w.parts; n0 += op.w.out[i++]) {
    Gemv& gemv = gemvs[i];
    gemv.m = op.x.rows(), gemv.k = op.w.in, gemv.n = op.w.out[i];
    gemv.x = op.x.f32(), gemv.x_pitch = op.w.in;
    gemv.w = weight_transposed(op.w, static_cast<int>(i));
    gemv.y = op.y.f32() + n0, gemv.y_pitch = op.w.rows();
    if (op.bias.given()) gemv.bias = op.bias.f32() + n0;
    if (op.carry.given()) gemv.carry = op.carry.f32() + n0;
  }
  multiply_few(context, gemvs, op.w.parts);
}

}  // namespace

void linear(const Linear& op, const Context& context) {
  if (op.x.rows() <= kGemvRows) return linear_few(op, context);
  const int64_t n = op.w.rows();
  Gemm gemm;
  gemm.m = op.x.rows();
  gemm.lefts[gemm.left_count++] = {op.x.f32(), op.w.in, op.w.in};
  for (int64_t i = 0, n0 = 0; i < op.w.parts; n0 += op.w.out[i++]) {
    Columns& columns = gemm.columns[gemm.column_count++];
    columns.n = op.w.out[i];
    columns.c = op.y.f32() + n0, columns.pitch = n;
    if (op.bias.given()) columns.bias = op.bias.f32() + n0;
    if (op.carry.given()) columns.carry = op.carry.f32() + n0;
    columns.add(0, op.w.in, weight_transposed(op.w, static_cast<int>(i)));
  }
  multiply(context, gemm);
}

void linear_grad(const LinearGrad& op, const Context& context) {
  const int64_t n = op.w.rows();
  Gemm gemm;
  gemm.m = op.dy.rows();
  Columns& columns = gemm.columns[gemm.column_count++];
  columns.n = op.w.in;
  columns.c = op.dx.f32(), columns.pitch = op.w.in;
  for (int64_t i = 0, n0 = 0; i < op.w.parts; n0 += op.w.out[i++]) {
    gemm.lefts[gemm.left_count] = {op.dy.f32() + n0, op.w.out[i], n};
    columns.add(gemm.left_count++, op.w.out[i], weight_straight(op.w, static_cast<int>(i)));
  }
  multiply(context, gemm);
}

}  // namespace lowrank::cpu::LOWRANK_ISA
