// Compiled once per instruction set, like the kernels it lists.
#include "table.h"

#include "gemm/tile.h"

#define LOWRANK_TEXT_(x) #x
#define LOWRANK_TEXT(x) LOWRANK_TEXT_(x)

namespace lowrank::cpu::LOWRANK_ISA {

namespace {

#define OP(stem, Contract) \
  void call_##stem(const void* contract, const Context& context) { stem(*static_cast<const Contract*>(contract), context); }
#include "../ops/list.def"
#undef OP

const Kernel kKernels[] = {
#define OP(stem, Contract) call_##stem,
#include "../ops/list.def"
#undef OP
};

}  // namespace

extern const Table kTable;
const Table kTable = {LOWRANK_TEXT(LOWRANK_ISA), kKernels, has_pairs};

}  // namespace lowrank::cpu::LOWRANK_ISA
