// The CPU as a backend: a pool of threads, scratch memory, and the kernel table of the best instruction set.
#pragma once
#include "../core/backend.h"

namespace lowrank::cpu {

const Backend* backend();

}  // namespace lowrank::cpu
