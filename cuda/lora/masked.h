#pragma once
#include "../philox.cuh"
#include "../queue.h"
#include "parts.h"

namespace lowrank::cuda {

// to = sum over parts of mask_i * (v_i A_i) / (1 - p), rounded once to 16 bits. Masks lie on `to` [rows, columns].
struct MaskedLowRank {
  DType dtype = DType::bf16;
  void* to = nullptr;
  int64_t pitch = 0, rows = 0, columns = 0;
  const void* v = nullptr;   // in halves, as a skinny product's tall: [rows, 2 * padded], low beside high
  const float* a = nullptr;  // [ranks, columns]
  PartList parts;
  Dropout masks[kMaxParts];
};

void masked_low_rank(Queue& queue, const MaskedLowRank& product);

}  // namespace lowrank::cuda
