// Ops that have no kernel here yet. Each fails when it is asked for, `auto` doesn't choose the device, and the parity suite counts their
// cases as not run. Whoever writes one must take it out here: two definitions don't link.
#include "missing.h"

#include "kernels.h"

#define MISSING_OPS(OP)              \
  OP(attention, Attention)           \
  OP(attention_grad, AttentionGrad)  \
  OP(attention_cache, AttentionCache)

namespace lowrank::cuda {

#define OP(stem, Contract) \
  void stem(const Contract&, Queue& queue) { queue.fail("ERR_UNSUPPORTED", #stem ": has no CUDA kernel yet"); }
MISSING_OPS(OP)
#undef OP

const char* missing_ops() {
#define OP(stem, ...) " " #stem
  return "there is no kernel yet for" MISSING_OPS(OP);
#undef OP
}

}  // namespace lowrank::cuda
