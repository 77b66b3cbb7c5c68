// The host side of every op of list.def: checks nothing (the contract has), launches on the queue's stream.
#pragma once
#include "../native/ops/all.h"
#include "queue.h"

namespace lowrank::cuda {

#define OP(stem, Contract) void stem(const Contract& op, Queue& queue);
#include "../native/ops/list.def"
#undef OP

}  // namespace lowrank::cuda
