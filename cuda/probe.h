#pragma once
#include <stddef.h>

#include <vector>

namespace lowrank::cuda {

// The CUDA runtime's numbers of the devices that can be used here; with none, `why` tells the reason in one sentence.
std::vector<int> usable_devices(char* why, size_t size);

}  // namespace lowrank::cuda
