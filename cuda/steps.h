// Numbers of steps for the ops of a graph: they change from launch to launch, so they are no part of it but words that its kernels read.
#pragma once
#include <stdint.h>

#include <vector>

#include "gpu.cuh"

namespace lowrank::cuda {

constexpr int kMostSteps = 32;  // ops of a graph

// to[i] = steps[i], for the work behind it on the stream.
void write_steps(cudaStream_t stream, uint32_t* to, const std::vector<uint32_t>& steps);

}  // namespace lowrank::cuda
