// Atomic operations and the fences that publish memory between blocks.
#pragma once
#include <cstddef>

#include "report.h"

namespace cusim {

// Before an atomic operation on `bytes` at `p`: alignment, bounds, order.
void atomic_access(void* p, size_t bytes, const Site& site);
void thread_fence();

}  // namespace cusim
