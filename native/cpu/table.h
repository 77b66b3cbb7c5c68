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

// LOWRANK_AMX: `off` leaves AMX's tiles alone, `emulated` computes what they would, slowly, anywhere.
enum class AmxUse : int32_t { usual, off, emulated };

// How this table multiplies bf16 on this processor: f32, where that would be no faster. Asks the system for tiles where they are wanted.
FrozenProducts medium_products(const Table* table, AmxUse use);

}  // namespace lowrank::cpu
