// __syncthreads and named barriers.
#pragma once
#include "report.h"

namespace cusim {

// All threads of the block meet at one place. Different places, or a thread that has left, are an error.
void sync_threads(const Site& site);
// bar.sync id, threads: whole warps; the warps that meet may stand at different places.
void sync_named(int id, int threads, const Site& site);
// bar.arrive id, threads: a whole warp is counted, and goes on.
void arrive_named(int id, int threads, const Site& site);

}  // namespace cusim
