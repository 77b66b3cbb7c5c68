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

struct alignas(16) PhiloxWords {
  uint32_t at[4];
};

// The four words of elements 8 * block to 8 * block + 7, of a current mask. The lower half of a word comes first.
GPU_FN PhiloxWords philox(const Dropout& drop, uint64_t block) {
  uint32_t c0 = static_cast<uint32_t>(block), c1 = static_cast<uint32_t>(block >> 32), c2 = drop.layer, c3 = drop.step;
  uint32_t k0 = drop.seed_low, k1 = drop.seed_high;
  GPU_UNROLL
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = static_cast<uint64_t>(0xd2511f53u) * c0, product1 = static_cast<uint64_t>(0xcd9e8d57u) * c2;
    c0 = static_cast<uint32_t>(product1 >> 32) ^ c1 ^ k0, c1 = static_cast<uint32_t>(product1);
    c2 = static_cast<uint32_t>(product0 >> 32) ^ c3 ^ k1, c3 = static_cast<uint32_t>(product0);
    k0 += 0x9e3779b9u, k1 += 0xbb67ae85u;
  }
  return {{c0, c1, c2, c3}};
}

// The words of elements `element` to element + 7, which may lie in two blocks.
GPU_FN PhiloxWords philox_of_eight(const Dropout& drop, int64_t element) {
  const auto block = static_cast<uint64_t>(element) / 8;
  const auto before = static_cast<int>(element % 8);
  PhiloxWords words = philox(drop, block);
  if (before == 0) return words;
  const PhiloxWords next = philox(drop, block + 1);
  uint32_t all[8] = {words.at[0], words.at[1], words.at[2], words.at[3], next.at[0], next.at[1], next.at[2], next.at[3]};
  GPU_UNROLL
  for (int i = 0; i < 6; ++i) all[i] = (before & 4) != 0 ? all[i + 2] : all[i];
  GPU_UNROLL
  for (int i = 0; i < 5; ++i) all[i] = (before & 2) != 0 ? all[i + 1] : all[i];
  GPU_UNROLL
  for (int i = 0; i < 4; ++i) words.at[i] = (before & 1) != 0 ? all[i] >> 16 | all[i + 1] << 16 : all[i];
  return words;
}

// Element e of them stays.
GPU_FN bool is_kept(const Dropout& drop, const PhiloxWords& words, int e) {
  const uint32_t word = words.at[e / 2];
  return (e % 2 == 0 ? word << 16 : word) >= drop.threshold << 16;
}

// Ones in the place of what stays, for pairs of 16-bit numbers.
GPU_FN PhiloxWords kept_pairs(const Dropout& drop, int64_t element) {
  PhiloxWords words = philox_of_eight(drop, element);
  GPU_UNROLL
  for (int i = 0; i < 4; ++i) words.at[i] = (is_kept(drop, words, 2 * i) ? 0xffffu : 0u) | (is_kept(drop, words, 2 * i + 1) ? 0xffff0000u : 0u);
  return words;
}

// 0 or 1 / (1 - p), for one element of a tensor.
GPU_FN float dropout_factor(const Dropout& drop, int64_t element) {
  const PhiloxWords words = philox(drop, static_cast<uint64_t>(element) / 8);
  const auto pair = static_cast<int>(element % 8 / 2);
  const uint32_t word = pair < 2 ? (pair == 0 ? words.at[0] : words.at[1]) : (pair == 2 ? words.at[2] : words.at[3]);
  return (element % 2 == 0 ? word & 0xffffu : word >> 16) < drop.threshold ? 0.0f : drop.keep;
}
#endif

}  // namespace lowrank::cuda
