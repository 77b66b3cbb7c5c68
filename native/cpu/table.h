// The kernels of one instruction set, by op number.
#pragma once
#include "../core/context.h"
#include "../core/tensor.h"

namespace lowrank::cpu {

using Kernel = void (*)(const void* contract, const Context& context);

struct Table {
  const char* isa;
  const Kernel* kernels;    // Op::count of them
  bool (*bf16_products)();  // whether it was compiled with them; the processor may lack them
};

// The table that LOWRANK_ISA names, or else the widest this processor runs. nullptr: `why` tells the reason.
const Table* choose_table(char* why, unsigned long size);

// Whether this table multiplies bf16 faster than f32 on this processor.
bool has_bf16_products(const Table* table);

}  // namespace lowrank::cpu
