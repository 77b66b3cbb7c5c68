// The kernels of one instruction set, by op number.
#pragma once
#include "../core/context.h"
#include "../core/tensor.h"

namespace lowrank::cpu {

using Kernel = void (*)(const void* contract, const Context& context);

struct Table {
  const char* isa;
  const Kernel* kernels;  // Op::count of them
};

// The table that LOWRANK_ISA names, or else the widest this processor runs. nullptr: `why` tells the reason.
const Table* choose_table(char* why, unsigned long size);

}  // namespace lowrank::cpu
