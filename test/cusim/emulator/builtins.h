// The variables that every CUDA kernel sees. Those of the running thread are switched with its fiber.
#pragma once
#include "dim3.h"

namespace cusim {

struct Index {
  unsigned x, y, z;
};

extern Index thread_index, block_index;
extern dim3 block_size, grid_size;

}  // namespace cusim
