// The loss over the vocabulary, a chunk of rows at a time: logits, loss and gradient in place, dx. All logits never exist.
#include "kernels.h"
#include "linear_cross_entropy_halves.h"
#include "loss_rows.h"
#include "product.h"

namespace lowrank::cuda {

namespace {

constexpr int64_t kLogitsBytes = 64 << 20;  // of a chunk, about

int64_t chunk_rows(int64_t rows, int64_t classes) {
  const int64_t fit = kLogitsBytes / (4 * (classes < 1 ? 1 : classes)), whole = fit < 64 ? 64 : fit / 64 * 64;
  return whole < rows ? whole : rows;
}

// The rows of x, targets and dx from `first` on, whose logits are made.
struct Chunk {
  int64_t first, rows;
  float* logits;  // [rows, V]
};

void make_logits(const LinearCrossEntropy& op, const Chunk& chunk, Queue& queue) {
  int64_t column = 0;
  for (int part = 0; part < op.w.parts; column += op.w.out[part++]) {
    Product product;
    product.m = chunk.rows, product.n = op.w.out[part];
    product.add(straight(op.x.f32() + chunk.first * op.w.in, op.w.in), weight_across(op.w, part), op.w.in);
    product.c = chunk.logits + column, product.c_row = op.w.rows();
    multiply(queue, product);
  }
}

void make_dx(const LinearCrossEntropy& op, const Chunk& chunk, Queue& queue) {
  Product product;
  product.m = chunk.rows, product.n = op.w.in;
  int64_t column = 0;
  for (int part = 0; part < op.w.parts; column += op.w.out[part++]) {
    product.add(straight(chunk.logits + column, op.w.rows()), weight_straight(op.w, part), op.w.out[part]);
  }
  product.c = op.dx.f32() + chunk.first * op.w.in, product.c_row = op.w.in;
  multiply(queue, product);
}

}  // namespace

void linear_cross_entropy(const LinearCrossEntropy& op, Queue& queue) {
  if (op.x.dtype != DType::f32) return linear_cross_entropy_halves(queue, op, kHalvesLogitsBytes);
  const int64_t rows = op.x.rows(), classes = op.w.rows(), step = chunk_rows(rows, classes);
  auto* losses = queue.scratch_for<double>(rows);
  auto* logits = queue.scratch_for<float>(step * classes);
  Report* report = queue.watch({"linear_cross_entropy: target", classes});
  if (losses == nullptr || logits == nullptr || report == nullptr) return;
  for (int64_t first = 0; first < rows; first += step) {
    const Chunk chunk{first, rows - first < step ? rows - first : step, logits};
    make_logits(op, chunk, queue);
    loss_rows(queue, {logits, DType::f32, DType::f32, classes, op.targets.i32() + first, losses + first, report, chunk.rows, classes, first, op.scale});
    if (op.dx.given()) make_dx(op, chunk, queue);
  }
  sum_losses(queue, losses, rows, op.loss.f32());
}

}  // namespace lowrank::cuda
