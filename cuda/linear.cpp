#include "kernels.h"
#include "lora/halves.h"
#include "product.h"

namespace lowrank::cuda {

void linear(const Linear& op, Queue& queue) {
  if (op.x.dtype != DType::f32) return linear_halves(queue, op);
  int64_t column = 0;
  for (int i = 0; i < op.w.parts; column += op.w.out[i++]) {
    Product product;
    product.m = op.x.rows(), product.n = op.w.out[i];
    product.add(straight(op.x.f32(), op.w.in), weight_across(op.w, i), op.w.in);
    if (op.bias.given()) product.bias = op.bias.f32() + column;
    if (op.carry.given()) product.carry = op.carry.f32() + column;
    product.c = op.y.f32() + column, product.c_row = op.w.rows();
    multiply(queue, product);
  }
}

void linear_grad(const LinearGrad& op, Queue& queue) {
  if (op.dy.dtype != DType::f32) return linear_grad_halves(queue, op);
  Product product;
  product.m = op.dy.rows(), product.n = op.w.in;
  int64_t column = 0;
  for (int i = 0; i < op.w.parts; column += op.w.out[i++]) {
    product.add(straight(op.dy.f32() + column, op.w.rows()), weight_straight(op.w, i), op.w.out[i]);
  }
  product.c = op.dx.f32(), product.c_row = op.w.in;
  multiply(queue, product);
}

}  // namespace lowrank::cuda
