// Logits of a chunk of rows are made in f32, so that neither loss nor softmax sees a rounding of theirs; the gradient takes their place in
// 16 bits, as the product with W wants it.
#include "linear_cross_entropy_halves.h"

#include "gemm/matrices.h"
#include "loss_rows.h"

namespace lowrank::cuda {

namespace {

constexpr int64_t kTileRows = 128;  // of the product's tiles

struct Loss {
  const LinearCrossEntropy* op;
  Halves x;
  Frozen w;
  float* logits;  // [rows of a chunk, pitch]
  int64_t pitch;
};

struct Chunk {
  int64_t first, rows;
};

int64_t chunk_rows(int64_t rows, int64_t row_bytes, int64_t bytes) {
  const int64_t fit = bytes / (row_bytes < 1 ? 1 : row_bytes), whole = fit < kTileRows ? kTileRows : fit / kTileRows * kTileRows;
  return whole < rows ? whole : rows;
}

void make_logits(Queue& queue, const Loss& loss, const Chunk& chunk) {
  const Weight& w = loss.op->w;
  int64_t column = 0;
  for (int i = 0; i < loss.w.count; ++i) {
    Gemm g;
    g.dtype = loss.op->x.dtype, g.b_lie = loss.w.forward;
    g.m = chunk.rows, g.n = loss.w.count == 1 ? w.rows() : w.out[i];
    g.add(elements_from(loss.x.data, chunk.first * loss.x.pitch), loss.x.pitch, loss.w.at[i].data, loss.w.at[i].pitch, w.in);
    g.c = loss.logits + column, g.c_pitch = loss.pitch, g.c_is_f32 = 1;
    gemm(queue, g);
    column += g.n;
  }
}

void make_dx(Queue& queue, const Loss& loss, const Chunk& chunk) {
  const LinearCrossEntropy& op = *loss.op;
  Gemm g;
  g.dtype = op.x.dtype, g.b_lie = loss.w.backward();
  g.m = chunk.rows, g.n = op.w.in;
  g.c = elements_from(op.dx.data, chunk.first * op.dx.pitch), g.c_pitch = op.dx.pitch;
  int64_t column = 0;
  for (int i = 0; i < loss.w.count; ++i) {
    const int64_t classes = loss.w.count == 1 ? op.w.rows() : op.w.out[i];
    const void* gradients = elements_from(static_cast<const void*>(loss.logits), column);
    const Halves left = halves_of(queue, {gradients, g.dtype, chunk.rows, classes, 2 * loss.pitch}, g.dtype);
    if (left.data == nullptr) return;
    g.add(left.data, left.pitch, loss.w.at[i].data, loss.w.at[i].pitch, classes);
    column += classes;
  }
  gemm(queue, g);
}

}  // namespace

void linear_cross_entropy_halves(Queue& queue, const LinearCrossEntropy& op, int64_t logits_bytes) {
  const int64_t rows = op.x.rows(), classes = op.w.rows(), pitch = whole_pieces(classes), step = chunk_rows(rows, 4 * pitch, logits_bytes);
  auto* losses = queue.scratch_for<double>(rows);
  const Loss loss{&op, halves_of(queue, op.x, 0, op.x.cols()), frozen_of(queue, op.w, op.x.dtype), queue.scratch_for<float>(step * pitch), pitch};
  Report* report = queue.watch({"linear_cross_entropy: target", classes});
  if (losses == nullptr || loss.x.data == nullptr || !loss.w.good() || loss.logits == nullptr || report == nullptr) return;
  for (int64_t first = 0; first < rows; first += step) {
    const Chunk chunk{first, rows - first < step ? rows - first : step};
    make_logits(queue, loss, chunk);
    loss_rows(queue, {loss.logits, DType::f32, op.x.dtype, pitch, op.targets.i32() + first, losses + first, report, chunk.rows, classes, first, op.scale});
    if (op.dx.given()) make_dx(queue, loss, chunk);
  }
  sum_losses(queue, losses, rows, op.loss.f32());
}

}  // namespace lowrank::cuda
