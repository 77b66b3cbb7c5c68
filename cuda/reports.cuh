// How a kernel says that an index is out of range. The lowest row wins, whatever the order of threads.
#pragma once
#include "queue.h"

namespace lowrank::cuda {

// True if `index` is in [0, limit). One thread of a row is enough to ask.
GPU_FN bool in_range(int32_t index, int64_t limit, int64_t row, Report* report) {
  if (index >= 0 && index < limit) return true;
  atomicMin(report, static_cast<Report>(row) << 32 | static_cast<uint32_t>(index));
  return false;
}

}  // namespace lowrank::cuda
