#pragma once
#include "queue.h"

namespace lowrank::cuda {

// Runs line `op` of list.def.
void run_op(int32_t op, const void* contract, Queue& queue);

}  // namespace lowrank::cuda
