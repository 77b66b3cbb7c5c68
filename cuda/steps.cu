#include "steps.h"

#include <string.h>

namespace lowrank::cuda {

namespace {

// As an argument: a copy from the host's memory would have to be awaited, or the memory kept.
struct Steps {
  uint32_t at[kMostSteps];
};

__global__ void __launch_bounds__(kMostSteps) set_words(GPU_ARGUMENT Steps steps, uint32_t* to, int count) {
  const auto i = static_cast<int>(threadIdx.x);
  if (i < count) to[i] = steps.at[i];
}

}  // namespace

void write_steps(cudaStream_t stream, uint32_t* to, const std::vector<uint32_t>& steps) {
  Steps words{};
  memcpy(words.at, steps.data(), steps.size() * sizeof(uint32_t));
  GPU_LAUNCH(set_words, 1, kMostSteps, 0, stream, words, to, static_cast<int>(steps.size()));
}

}  // namespace lowrank::cuda
