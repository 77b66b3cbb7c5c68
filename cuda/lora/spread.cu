#include "spread.cuh"

namespace lowrank::cuda {

namespace {

constexpr int kThreads = 256;
constexpr int64_t kTurns = 4;       // values of a thread that has eight slots
constexpr int64_t kPlacesAside = 4;  // of a warp that writes values side by side: its loads and its stores both meet whole sectors

int64_t rounded_up(int64_t count, int64_t to) { return (count + to - 1) / to; }

struct Spreads {
  Spread at[kMostSpreads];
};

// Slots of a value side by side. Thread t has eight slots of kTurns values, `apart` values from each other.
template <class H>
GPU_FN void spread_by_slots(const Spread& s, uint32_t t) {
  const auto pieces = static_cast<uint32_t>(s.slots.count + kOwnSlots - 1) / kOwnSlots, apart = static_cast<uint32_t>((s.values + kTurns - 1) / kTurns);
  const uint32_t piece = t % pieces, value = t / pieces;
  if (value >= apart) return;
  const OwnSlots own = own_slots(s, static_cast<int32_t>(piece) * kOwnSlots);
  GPU_UNROLL
  for (int turn = 0; turn < kTurns; ++turn) {
    const int64_t i = static_cast<int64_t>(turn) * apart + value;
    if (i < s.values) write_slots<H>(s, own, row_of(s, s.first + i), i);
  }
}

// Numbers of one rank for values first, first + 1, ...: those of its own part, where they come from the flat B.
struct RankColumn {
  const float* data;
  int64_t pitch, begin, end;  // of the values that have a number

  GPU_FN float at(int64_t i) const { return i >= begin && i < end ? data[i * pitch] : 0.0f; }
};
GPU_FN RankColumn column_of(const Spread& s, int64_t rank) {
  const Ranked& from = s.from;
  if (!from.flat_b) return {from.data + rank * from.rank_pitch, from.value_pitch, 0, s.first + s.values};
  const Part& part = s.parts.at[s.parts.part_of_rank(rank)];
  return {from.data + part.b0 - part.column * part.rank + rank - part.rank0, part.rank, part.column, part.column + part.out};
}

// Values of a slot side by side. A thread has eight values of one place of the ranks, in all its copies, or of a slot behind them; a warp
// has kPlacesAside places.
template <class H>
GPU_FN void spread_by_values(const Spread& s, uint32_t t) {
  constexpr uint32_t kPlaces = kPlacesAside, kAcross = 32 / kPlaces;
  const int32_t span = span_of(s), behind = s.slots.copies * span, places = span + s.slots.count - behind;
  const auto warps_across = static_cast<uint32_t>((s.values + kOwnSlots * kAcross - 1) / (kOwnSlots * kAcross));
  const uint32_t warp = t / 32, lane = t % 32;
  const auto place = static_cast<int32_t>(warp / warps_across * kPlaces + lane % kPlaces);
  const int64_t first = (static_cast<int64_t>(warp % warps_across) * kAcross + lane / kPlaces) * kOwnSlots, left = s.values - first;
  if (place >= places || left <= 0) return;
  const bool ranked = place < span;
  const Source source = ranked ? Source{rank_in(s, place), false} : source_after(s, place - span);
  float values[kOwnSlots];
  if (source.rank >= 0) {
    const RankColumn column = column_of(s, source.rank);
    GPU_UNROLL
    for (int e = 0; e < kOwnSlots; ++e) values[e] = e < left ? column.at(s.first + first + e) : 0.0f;
  } else {
    GPU_UNROLL
    for (int e = 0; e < kOwnSlots; ++e) values[e] = source.rank == kOne ? 1.0f : source.rank == kBias && e < left ? s.slots.bias[s.first + first + e] : 0.0f;
  }
  const int copies = ranked ? s.slots.copies : 1;
  GPU_NO_UNROLL
  for (int copy = 0; copy < copies; ++copy) {
    const bool low = ranked ? s.slots.low[copy] : source.low;
    const int32_t slot = ranked ? copy * span + place : behind + place - span;
    Floats<kOwnSlots> eight;
    GPU_UNROLL
    for (int e = 0; e < kOwnSlots; ++e) eight.at[e] = half_of<H>(values[e], low);
    store_first(static_cast<H*>(s.to) + slot * s.slot_pitch + first, eight, left);
  }
}

// blockIdx.y: which.
template <class H>
__global__ void __launch_bounds__(kThreads) spread_slots(GPU_ARGUMENT Spreads spreads) {
  const Spread& s = spreads.at[blockIdx.y];
  const uint32_t t = blockIdx.x * kThreads + threadIdx.x;
  if (s.values == 0 || s.slots.count == 0) return;
  if (s.slot_pitch == 1) spread_by_slots<H>(s, t);
  else spread_by_values<H>(s, t);
}

int64_t threads_of(const Spread& s) {
  if (s.slot_pitch == 1) return rounded_up(s.slots.count, kOwnSlots) * rounded_up(s.values, kTurns);
  const int64_t span = s.slots.padded ? s.parts.padded() : s.parts.ranks(), places = span + s.slots.count - s.slots.copies * span;
  return 32 * rounded_up(places, kPlacesAside) * rounded_up(s.values, kOwnSlots * 32 / kPlacesAside);
}

}  // namespace

void spread(Queue& queue, std::initializer_list<Spread> list) {
  Spreads spreads;
  int64_t most = 0;
  unsigned count = 0;
  for (const Spread& one : list) {
    if (one.to == nullptr || one.values == 0 || one.slots.count == 0) continue;
    const int64_t threads = threads_of(one);
    most = threads > most ? threads : most;
    spreads.at[count++] = one;
  }
  if (most == 0) return;
  const dim3 blocks(static_cast<unsigned>(rounded_up(most, kThreads)), count);
  if (spreads.at[0].dtype == DType::bf16) GPU_LAUNCH(spread_slots<bf16>, blocks, kThreads, 0, queue.stream(), spreads);
  else GPU_LAUNCH(spread_slots<f16>, blocks, kThreads, 0, queue.stream(), spreads);
}

}  // namespace lowrank::cuda
