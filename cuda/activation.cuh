// Functions of one number that activations are made of. Errors as CUDA's own functions state them: expf 1 ulp, normcdff 5 ulp.
#pragma once
#include "gpu.cuh"

namespace lowrank::cuda {

GPU_FN float sigmoid(float z) { return 1.0f / (1.0f + expf(-z)); }

// The normal distribution below x, right in relative terms in both tails.
GPU_FN float normal_below(float x) {
#ifdef LOWRANK_CUSIM
  return static_cast<float>(0.5 * erfc(-static_cast<double>(x) * 0.70710678118654752));
#else
  return normcdff(x);
#endif
}

}  // namespace lowrank::cuda
