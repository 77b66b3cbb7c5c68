// The loss over the vocabulary for 16-bit activations.
#pragma once
#include "../native/ops/cross_entropy.h"
#include "queue.h"

namespace lowrank::cuda {

// W is read twice for every chunk, and dx of a chunk [rows, K] must have tiles for all multiprocessors: 1,024 rows of Llama 3's 128,256
// classes. On an H100, 512 rows made dx eight times slower (bench/cuda/gpu_peak).
// src/models/weight-memory.ts leaves room for them.
constexpr int64_t kHalvesLogitsBytes = 512 << 20;

// `logits_bytes`: about what the logits of a chunk take.
void linear_cross_entropy_halves(Queue& queue, const LinearCrossEntropy& op, int64_t logits_bytes);

}  // namespace lowrank::cuda
