#pragma once
#include "gathered.h"
#include "queue.h"

namespace lowrank::cuda {

// Runs line `op` of list.def.
void run_op(int32_t op, const void* contract, Queue& queue);
// Keeps it for later.
void gather_op(int32_t op, const void* contract, Gathered& gathered);

}  // namespace lowrank::cuda
