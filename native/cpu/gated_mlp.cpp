#include "kernel.h"

namespace lowrank::cpu::LOWRANK_ISA {

void swiglu_then_lora_linear(const SwigluThenLoraLinear& op, const Context& context) {
  swiglu(op.first(), context);
  lora_linear(op.second(), context);
}

void swiglu_grad_then_lora_linear_grad(const SwigluGradThenLoraLinearGrad& op, const Context& context) {
  swiglu_grad(op.first(), context);
  lora_linear_grad(op.second(), context);
}

}  // namespace lowrank::cpu::LOWRANK_ISA
