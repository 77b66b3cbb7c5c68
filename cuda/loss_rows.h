// Cross entropy of rows of logits that exist, for cross_entropy_inplace and for the chunks of linear_cross_entropy.
#pragma once
#include "../native/core/dtype.h"
#include "queue.h"

namespace lowrank::cuda {

struct LossRows {
  void* logits;            // [rows, classes] of `dtype`, rows `pitch` apart; become scale * (softmax - onehot), those that are ignored 0
  DType dtype;
  DType gradient;  // what they become: as `dtype`, or 16 bits in the first half of a row of f32
  int64_t pitch;
  const int32_t* targets;  // [rows]
  double* losses;          // [rows]
  Report* report;          // of targets out of range
  int64_t rows, classes, first_row;  // first_row: the number of row 0, for the report
  float scale;
};

void loss_rows(Queue& queue, const LossRows& rows);
// *loss = sum of losses [count], in f64 and always in the same order.
void sum_losses(Queue& queue, const double* losses, int64_t count, float* loss);

}  // namespace lowrank::cuda
