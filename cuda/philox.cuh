// Dropout from a counter: Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC 2011). The same
// bits as native/cpu/philox.h: the mask is a function of (seed, layer, step, element), so nobody stores it. An element takes 16 bits.
#pragma once
#include "../native/ops/lora_linear.h"
#include "gpu.cuh"

namespace lowrank::cuda {

struct Dropout {
  uint32_t threshold = 0;  // a smaller half word drops its element; 0: no mask
  uint32_t seed_low = 0, seed_high = 0, layer = 0, step = 0;
  float keep = 1.0f;  // 1 / (1 - p)
  const uint32_t* step_at = nullptr;  // on the device: where a kernel finds the step; nullptr: `step` is it
};

inline Dropout dropout_of(const LoraParts& parts, int part, const uint32_t* step_at = nullptr) {
  Dropout drop;
  drop.threshold = parts.threshold();
  drop.seed_low = parts.seed_low, drop.seed_high = parts.seed_high;
  drop.layer = parts.layer[part], drop.step = parts.step;
  drop.keep = parts.keep();
  drop.step_at = step_at;
  return drop;
}

#ifdef GPU_KERNELS
// With the step that counts now. A kernel asks before its loops.
GPU_FN Dropout current(Dropout drop) {
  if (drop.step_at != nullptr) drop.step = *drop.step_at;
  return drop;
}

struct PhiloxWords {
  uint32_t at[4];
};

// The four words of elements 8 * block to 8 * block + 7, of a current mask.
GPU_FN PhiloxWords philox(const Dropout& drop, uint64_t block) {
  uint32_t c0 = static_cast<uint32_t>(block), c1 = static_cast<uint32_t>(block >> 32), c2 = drop.layer, c3 = drop.step;
  uint32_t k0 = drop.seed_low, k1 = drop.seed_high;
  GPU_UNROLL
  for (int round = 0; round < 10; ++round) {
    const uint32_t high0 = __umulhi(0xd2511f53u, c0), low0 = 0xd2511f53u * c0;
    const uint32_t high1 = __umulhi(0xcd9e8d57u, c2), low1 = 0xcd9e8d57u * c2;
    c0 = high1 ^ c1 ^ k0, c1 = low1;
    c2 = high0 ^ c3 ^ k1, c3 = low0;
    k0 += 0x9e3779b9u, k1 += 0xbb67ae85u;
  }
  return {{c0, c1, c2, c3}};
}

// The half word of `element`, among those of its block: the lower half of a word comes first.
GPU_FN uint32_t half_of(const PhiloxWords& words, int64_t element) {
  const int64_t which = element % 8 / 2;
  const uint32_t word = which < 2 ? (which == 0 ? words.at[0] : words.at[1]) : (which == 2 ? words.at[2] : words.at[3]);
  return element % 2 == 0 ? word & 0xffffu : word >> 16;
}

// Bit e is set: element + e stays. For eight neighbours; one call where the first is a multiple of eight.
GPU_FN uint32_t kept_of_eight(const Dropout& drop, int64_t element) {
  uint32_t kept = 0;
  PhiloxWords words{};
  GPU_NO_UNROLL  // where the block of eight begins is not known, and eight calls would be laid out
  for (int e = 0; e < 8; ++e) {
    const int64_t number = element + e;
    if (e == 0 || number % 8 == 0) words = philox(drop, static_cast<uint64_t>(number) / 8);
    kept |= (half_of(words, number) >= drop.threshold ? 1u : 0u) << e;
  }
  return kept;
}

// 0 or 1 / (1 - p), for one element of a tensor.
GPU_FN float dropout_factor(const Dropout& drop, int64_t element) {
  const PhiloxWords words = philox(drop, static_cast<uint64_t>(element) / 8);
  return half_of(words, element) < drop.threshold ? 0.0f : drop.keep;
}
#endif

}  // namespace lowrank::cuda
