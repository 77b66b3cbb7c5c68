#include "atomic.h"

#include <cstdint>

#include "block.h"
#include "checker.h"

namespace cusim {

void atomic_access(void* p, size_t bytes, const Site& site) {
  if (reinterpret_cast<uintptr_t>(p) % bytes != 0) fail("an atomic operation on a misaligned address: " + describe(p, bytes), site);
  if (checked()) check_access(block.running->linear, p, bytes, Touch::atomic, {nullptr, site});
  block.clocks.atomic(block.running->linear);
}

void thread_fence() { block.clocks.fence(block.running->linear); }

}  // namespace cusim
