// The loss over the vocabulary for 16-bit activations.
#pragma once
#include "../native/ops/cross_entropy.h"
#include "queue.h"

namespace lowrank::cuda {

// W is read twice for every chunk: with fewer than some hundred rows that, and not the products, would be what takes the time.
constexpr int64_t kHalvesLogitsBytes = 256 << 20;

// `logits_bytes`: about what the logits of a chunk take.
void linear_cross_entropy_halves(Queue& queue, const LinearCrossEntropy& op, int64_t logits_bytes);

}  // namespace lowrank::cuda
