// The kernels of one instruction set, by op number.
#pragma once
#include "../core/context.h"
#include "../core/tensor.h"

namespace lowrank::cpu {

using Kernel = void (*)(const void* contract, const Context& context);

struct Table {
  const char* isa;
  const Kernel* kernels;  // Op::count of them
  bool (*has_pairs)();    // whether it was compiled with FrozenProducts::pairs; the processor may lack them
};

// The table that LOWRANK_ISA names, or else the widest this processor runs. nullptr: `why` tells the reason.
const Table* choose_table(char* why, unsigned long size);

// How this table multiplies bf16 on this processor: f32, where that would be no faster. LOWRANK_AMX=off leaves out AMX's tiles, `emulated`
// computes what they would, slowly, anywhere.
FrozenProducts medium_products(const Table* table);

}  // namespace lowrank::cpu
