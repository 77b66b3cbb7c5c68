// Functions of one number that activations are made of. Errors as CUDA's own functions state them: expf 1 ulp, normcdff 5 ulp.
#pragma once
#include "ptx.cuh"

namespace lowrank::cuda {

GPU_FN float sigmoid(float z) { return 1.0f / (1.0f + expf(-z)); }
// In a fifth of the instructions, for what is rounded to 16 bits: off by 2^-21 relatively; 0 where it is below 2^-126.
GPU_FN float sigmoid_approximate(float z) { return ptx::reciprocal_approximate(1.0f + ptx::exp2_approximate(-1.4426950408889634f * z)); }

// SwiGLU and its gradient, as native/ops/swiglu.h states them; q is the sigmoid of the gate.
GPU_FN float gated(float gate, float up, float q) { return up * (gate * q); }
GPU_FN float gated(float gate, float up) { return gated(gate, up, sigmoid(gate)); }
struct GatedGradient {
  float gate, up;
};
GPU_FN GatedGradient gated_gradient(float dy, float gate, float up, float q) {
  const float pull = dy * q;
  return {pull * up * (1.0f + gate * (1.0f - q)), pull * gate};
}
GPU_FN GatedGradient gated_gradient(float dy, float gate, float up) { return gated_gradient(dy, gate, up, sigmoid(gate)); }

// The normal distribution below x, right in relative terms in both tails.
GPU_FN float normal_below(float x) {
#ifdef LOWRANK_CUSIM
  return static_cast<float>(0.5 * erfc(-static_cast<double>(x) * 0.70710678118654752));
#else
  return normcdff(x);
#endif
}

}  // namespace lowrank::cuda
