#include <stdlib.h>
#include <string.h>

#include "kernels.h"
#include "lora/halves.h"

namespace lowrank::cuda {

namespace {

// LOWRANK_FUSE=0, when the plugin is loaded: each op by itself, to see what a pass less is worth.
const char* const kSetting = getenv("LOWRANK_FUSE");
bool fuses(DType activations) { return activations != DType::f32 && (kSetting == nullptr || strcmp(kSetting, "0") != 0); }

}  // namespace

void swiglu_then_lora_linear(const SwigluThenLoraLinear& op, Queue& queue) {
  if (fuses(op.x.dtype) && swiglu_then_lora_linear_halves(queue, op)) return;
  swiglu(op.first(), queue);
  lora_linear(op.second(), queue);
}

void swiglu_grad_then_lora_linear_grad(const SwigluGradThenLoraLinearGrad& op, Queue& queue) {
  if (fuses(op.x.dtype) && swiglu_grad_then_lora_linear_grad_halves(queue, op)) return;
  swiglu_grad(op.first(), queue);
  lora_linear_grad(op.second(), queue);
}

}  // namespace lowrank::cuda
