// Division of indices by a number that is known at the launch and not before: a product and a shift instead of some twenty instructions.
#pragma once
#include "gpu.cuh"

namespace lowrank::cuda {

// For numbers from 0 to 2^31 - 1 (Granlund and Montgomery 1994): n / value = (n + high half of n * factor) >> shift.
struct Divisor {
  int32_t value;
  uint32_t factor;
  uint32_t shift;

  explicit Divisor(int32_t divisor) : value(divisor), shift(0) {
    while ((int64_t{1} << shift) < divisor) ++shift;
    factor = static_cast<uint32_t>(((((uint64_t{1} << shift) - static_cast<uint64_t>(divisor)) << 32) / static_cast<uint64_t>(divisor)) + 1);
  }
#ifdef GPU_KERNELS
  GPU_FN int32_t quotient(int32_t n) const { return static_cast<int32_t>((__umulhi(static_cast<uint32_t>(n), factor) + static_cast<uint32_t>(n)) >> shift); }
#endif
};

}  // namespace lowrank::cuda
