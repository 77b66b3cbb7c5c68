#pragma once
#include <stdint.h>

namespace lowrank::cuda {

// Which ops can't run yet, as a sentence; empty when all can.
const char* missing_ops();
// Whether line `op` of list.def has kernels for f32 activations alone.
bool only_f32(int32_t op);

}  // namespace lowrank::cuda
