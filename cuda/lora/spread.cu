#include "spread.h"

#include "../half.cuh"

namespace lowrank::cuda {

namespace {

constexpr int kThreads = 256;

GPU_FN float ranked(const Spread& s, int64_t i, int64_t rank) {
  if (!s.from.flat_b) return s.from.data[i * s.from.value_pitch + rank * s.from.rank_pitch];
  for (int p = 0; p < kMaxParts; ++p) {
    const Part& part = s.parts.at[p];
    if (p >= s.parts.count || i < part.column || i >= part.column + part.out) continue;
    const bool own = rank >= part.rank0 && rank < part.rank0 + part.rank;
    return own ? s.from.data[part.b0 + (i - part.column) * part.rank + rank - part.rank0] : 0.0f;
  }
  return 0.0f;
}

// What of `value` goes into 16 bits: itself, or what it loses there.
template <class H>
GPU_FN H half_of(float value, bool low) {
  const H high = from_f32<H>(value);
  return low ? from_f32<H>(value - to_f32(high)) : high;
}

template <class H>
GPU_FN H slot(const Spread& s, int64_t i, int64_t j) {
  const int64_t span = s.slots.padded ? s.parts.padded() : s.parts.ranks();
  for (int copy = 0; copy < kMostCopies; ++copy, j -= span) {
    if (copy >= s.slots.copies) break;
    if (j >= span) continue;
    const int64_t rank = s.slots.padded ? s.parts.rank_at(j) : j;
    return rank < 0 ? H{0} : half_of<H>(ranked(s, i, rank), s.slots.low[copy]);
  }
  if (j >= 2 || s.slots.then == Slots::Then::zeros) return H{0};
  if (s.slots.then == Slots::Then::ones) return from_f32<H>(1.0f);
  return half_of<H>(s.slots.bias[i], j == 1);
}

struct Spreads {
  Spread at[kMostSpreads];
};

// blockIdx.y: which. Neighbouring threads write neighbouring numbers: slots of a value, or values of a slot.
template <class H>
__global__ void __launch_bounds__(kThreads) spread_slots(GPU_ARGUMENT Spreads spreads) {
  const Spread& s = spreads.at[blockIdx.y];
  const int64_t at = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (at >= s.values * s.slots.count) return;
  const bool slots_first = s.slot_pitch == 1;
  const int64_t i = slots_first ? at / s.slots.count : at % s.values, j = slots_first ? at % s.slots.count : at / s.values;
  static_cast<H*>(s.to)[i * s.value_pitch + j * s.slot_pitch] = slot<H>(s, s.first + i, j);
}

}  // namespace

void spread(Queue& queue, std::initializer_list<Spread> list) {
  Spreads spreads;
  int64_t most = 0;
  unsigned count = 0;
  for (const Spread& one : list) {
    const int64_t numbers = one.values * one.slots.count;
    most = numbers > most ? numbers : most;
    spreads.at[count++] = one;
  }
  if (most == 0) return;
  const dim3 blocks(static_cast<unsigned>((most + kThreads - 1) / kThreads), count);
  if (spreads.at[0].dtype == DType::bf16) GPU_LAUNCH(spread_slots<bf16>, blocks, kThreads, 0, queue.stream(), spreads);
  else GPU_LAUNCH(spread_slots<f16>, blocks, kThreads, 0, queue.stream(), spreads);
}

}  // namespace lowrank::cuda
