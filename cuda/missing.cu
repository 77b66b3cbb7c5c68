// Ops that have no kernel here yet. Each fails when it is asked for, and the parity suite counts its cases as not run. Whoever writes
// one must take its line out: two definitions don't link.
#include "kernels.h"

namespace lowrank::cuda {

#define MISSING(stem, Contract) \
  void stem(const Contract&, Queue& queue) { queue.fail("ERR_UNSUPPORTED", #stem ": has no CUDA kernel yet"); }

MISSING(lora_linear, LoraLinear)
MISSING(lora_linear_grad, LoraLinearGrad)
MISSING(linear, Linear)
MISSING(linear_grad, LinearGrad)
MISSING(lora_merge, LoraMerge)
MISSING(attention, Attention)
MISSING(attention_grad, AttentionGrad)
MISSING(attention_cache, AttentionCache)
MISSING(cross_entropy_inplace, CrossEntropyInplace)
MISSING(linear_cross_entropy, LinearCrossEntropy)

}  // namespace lowrank::cuda
