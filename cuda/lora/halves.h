// Linear maps of 16-bit activations, with and without an adapter.
//
//   y = [x | u'] [W0 | B']^T and dx = [dy | v'] [W0 ; A'], where x, dy and W0 have borders for u', v', B' and A': a single product, 64 longer
// along k. The primes say that numbers of f32 lie there rounded to 16 bits, and what that loses beside them: u high, u low, u high again,
// against B high, B high, B low. So the adapter is as good as in f32, as long as three times its ranks fit; then two, then one.
#pragma once
#include "../../native/ops/all.h"
#include "../queue.h"

namespace lowrank::cuda {

void linear_halves(Queue& queue, const Linear& op);
void linear_grad_halves(Queue& queue, const LinearGrad& op);
void lora_linear_halves(Queue& queue, const LoraLinear& op);
void lora_linear_grad_halves(Queue& queue, const LoraLinearGrad& op);
// False: nothing is done, and nothing would be saved by doing both at once. An h, or a dy, that can be made on the way lies as it is used.
bool swiglu_then_lora_linear_halves(Queue& queue, const SwigluThenLoraLinear& op);
bool swiglu_grad_then_lora_linear_grad_halves(Queue& queue, const SwigluGradThenLoraLinearGrad& op);

}  // namespace lowrank::cuda
