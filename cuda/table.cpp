#include "table.h"

#include "kernels.h"
#include "operands.h"

namespace lowrank::cuda {

namespace {

#define OP(stem, Contract)                                     \
  void call_##stem(const void* contract, Queue& queue) {       \
    const auto& op = *static_cast<const Contract*>(contract);  \
    LOWRANK_DECLARE_OPERANDS(op);                              \
    stem(op, queue);                                           \
  }
#include "../native/ops/list.def"
#undef OP

#define OP(stem, Contract) \
  void gather_##stem(int32_t op, const void* contract, Gathered& gathered) { gathered.add(op, *static_cast<const Contract*>(contract)); }
#include "../native/ops/list.def"
#undef OP

using Gather = void (*)(int32_t op, const void* contract, Gathered& gathered);

const Gather kGathers[] = {
#define OP(stem, Contract) gather_##stem,
#include "../native/ops/list.def"
#undef OP
};

using Call = void (*)(const void* contract, Queue& queue);

const Call kCalls[] = {
#define OP(stem, Contract) call_##stem,
#include "../native/ops/list.def"
#undef OP
};

}  // namespace

void run_op(int32_t op, const void* contract, Queue& queue) { kCalls[op](contract, queue); }
void gather_op(int32_t op, const void* contract, Gathered& gathered) { kGathers[op](op, contract, gathered); }

}  // namespace lowrank::cuda
