// What lies in a slot. A thread writes 16 bytes of slots at a time: eight slots of one value, or eight values of one slot.
#pragma once
#include "../pack.cuh"
#include "spread.h"

namespace lowrank::cuda {

constexpr int kOwnSlots = 8;

// Where a slot's number comes from: a rank, or one of these.
constexpr int32_t kNowhere = -1, kOne = -2, kBias = -3;
struct Source {
  int32_t rank = kNowhere;
  bool low = false;
};

// How many places the ranks take, and what lies behind all their copies: `after` counts from there.
GPU_FN int32_t span_of(const Spread& s) { return static_cast<int32_t>(s.slots.padded ? s.parts.padded() : s.parts.ranks()); }
GPU_FN Source source_after(const Spread& s, int32_t after) {
  if (after >= 2 || s.slots.then == Slots::Then::zeros) return {};
  if (s.slots.then == Slots::Then::ones) return {kOne, false};
  return {kBias, after == 1};
}
GPU_FN int32_t rank_in(const Spread& s, int32_t place) { return s.slots.padded ? static_cast<int32_t>(s.parts.rank_at(place)) : place; }

GPU_FN Source source_of(const Spread& s, int32_t span, int32_t slot) {
  for (int copy = 0; copy < kMostCopies; ++copy, slot -= span) {
    if (copy >= s.slots.copies) break;
    if (slot < span) return {rank_in(s, slot), s.slots.low[copy]};
  }
  return source_after(s, slot);
}

// The numbers of one value: those of ranks [begin, end) are data[rank * pitch].
struct RankRow {
  const float* data = nullptr;
  int64_t pitch = 1;
  int32_t begin = 0, end = 0;
  float bias = 0.0f;

  GPU_FN float at(int32_t rank) const {
    float number = rank == kOne ? 1.0f : rank == kBias ? bias : 0.0f;
    if (rank >= begin && rank < end) number = data[rank * pitch];
    return number;
  }
};

GPU_FN RankRow row_of(const Spread& s, int64_t i) {
  RankRow row;
  if (s.slots.then == Slots::Then::bias) row.bias = s.slots.bias[i];
  if (!s.from.flat_b) {
    row.data = s.from.data + i * s.from.value_pitch, row.pitch = s.from.rank_pitch;
    row.end = static_cast<int32_t>(s.parts.ranks());
    return row;
  }
  GPU_UNROLL
  for (int p = 0; p < kMaxParts; ++p) {
    const Part& part = s.parts.at[p];
    if (p >= s.parts.count || i < part.column || i >= part.column + part.out) continue;
    row.data = s.from.data + part.b0 + (i - part.column) * part.rank - part.rank0;
    row.begin = static_cast<int32_t>(part.rank0), row.end = static_cast<int32_t>(part.rank0 + part.rank);
  }
  return row;
}

// What of `value` goes into 16 bits: itself, or what it loses there.
template <class H>
GPU_FN float half_of(float value, bool low) {
  return low ? value - to_f32(from_f32<H>(value)) : value;
}

// A thread's eight slots from `first` on, a multiple of eight, of whichever values.
struct OwnSlots {
  int32_t first;
  Source from[kOwnSlots];
};
// Eight places of one copy, whose ranks stand side by side: found at once.
GPU_FN OwnSlots own_places(const Spread& s, int32_t first, int32_t place, bool low) {
  int32_t rank0 = place, given = kOwnSlots;
  if (s.slots.padded) {
    const Part& part = s.parts.at[s.parts.part_of_place(place)];
    const auto inside = static_cast<int32_t>(place - part.padded0);
    rank0 = static_cast<int32_t>(part.rank0) + inside, given = static_cast<int32_t>(part.rank) - inside;
  }
  OwnSlots own{first, {}};
  GPU_UNROLL
  for (int e = 0; e < kOwnSlots; ++e) own.from[e] = {e < given ? rank0 + e : kNowhere, low};
  return own;
}
GPU_FN OwnSlots own_slots(const Spread& s, int32_t first) {
  const int32_t span = span_of(s), copy = span == 0 ? s.slots.copies : first / span;
  if (copy < s.slots.copies && span % kOwnSlots == 0) return own_places(s, first, first - copy * span, s.slots.low[copy]);
  OwnSlots own{first, {}};
  GPU_UNROLL
  for (int e = 0; e < kOwnSlots; ++e) own.from[e] = source_of(s, span, first + e);
  return own;
}

// Those of value i, where the slots of a value lie side by side.
template <class H>
GPU_FN void write_slots(const Spread& s, const OwnSlots& own, const RankRow& row, int64_t i) {
  Floats<kOwnSlots> eight;
  GPU_UNROLL
  for (int e = 0; e < kOwnSlots; ++e) eight.at[e] = half_of<H>(row.at(own.from[e].rank), own.from[e].low);
  store_first(static_cast<H*>(s.to) + i * s.value_pitch + own.first, eight, s.slots.count - own.first);
}

}  // namespace lowrank::cuda
