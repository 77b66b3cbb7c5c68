// Functions of one number that activations are made of. Errors as CUDA's own functions state them: expf 1 ulp, normcdff 5 ulp.
#pragma once
#include "gpu.cuh"

namespace lowrank::cuda {

GPU_FN float sigmoid(float z) { return 1.0f / (1.0f + expf(-z)); }

// SwiGLU and its gradient, as native/ops/swiglu.h states them.
GPU_FN float gated(float gate, float up) { return up * (gate * sigmoid(gate)); }
struct GatedGradient {
  float gate, up;
};
GPU_FN GatedGradient gated_gradient(float dy, float gate, float up) {
  const float q = sigmoid(gate), pull = dy * q;
  return {pull * up * (1.0f + gate * (1.0f - q)), pull * gate};
}

// The normal distribution below x, right in relative terms in both tails.
GPU_FN float normal_below(float x) {
#ifdef LOWRANK_CUSIM
  return static_cast<float>(0.5 * erfc(-static_cast<double>(x) * 0.70710678118654752));
#else
  return normcdff(x);
#endif
}

}  // namespace lowrank::cuda
