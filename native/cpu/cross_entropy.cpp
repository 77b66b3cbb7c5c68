#include "softmax_row.h"

namespace lowrank::cpu::LOWRANK_ISA {

void cross_entropy_inplace(const CrossEntropyInplace& op, const Context& context) {
  const int64_t rows = op.logits.rows(), cols = op.logits.cols();
  if (!targets_in_range(context, "cross_entropy_inplace", op.targets, cols)) return;
  double* losses = context.scratch_for<double>(-1, rows + 1);
  if (losses == nullptr) return;
  for_rows(context, rows, cols, [&](int64_t row) {
    losses[row] = cross_entropy_row(op.logits.f32() + row * cols, cols, op.targets.i32()[row], op.scale);
  });
  double loss = 0;
  for (int64_t row = 0; row < rows; ++row) loss += losses[row];
  op.loss.f32()[0] = static_cast<float>(loss);
}

}  // namespace lowrank::cpu::LOWRANK_ISA
