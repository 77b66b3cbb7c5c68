// How much memory mapped files may take before the system has to take something away.
#pragma once
#include <stdint.h>

namespace lowrank {

// Bytes that are free or hold cached files, in the system and in every memory group (cgroup v1 or v2) that this process is in. Those
// that hold our own mapped files are among them. -1: can't be told here.
int64_t available_memory();

}  // namespace lowrank
