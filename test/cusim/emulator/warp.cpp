#include "warp.h"

#include "block.h"
#include "config.h"

namespace cusim {

namespace {

// The open meeting that `mask` belongs to, or a new one.
Collective& collective_for(const Meeting& meeting, uint32_t mask, const Site& site) {
  Warp& warp = block.warp_of(*block.running);
  for (Collective& open : warp.collectives) {
    if (!open.open || (open.mask & mask) == 0) continue;
    if (open.mask == mask && open.kind == meeting.kind && (!meeting.aligned || open.site == site)) return open;
    fail(format("warp divergence: %s with mask %08x here, other lanes wait in %s with mask %08x at %s", meeting.name, mask, open.name, open.mask,
                open.site.text().c_str()),
         site);
  }
  for (Collective& free : warp.collectives) {
    if (free.open) continue;
    free = {.open = true, .kind = meeting.kind, .name = meeting.name, .site = site, .mask = mask, .arrived = 0, .arguments = {}};
    return free;
  }
  fail("too many warp operations are open in one warp", site);
}

}  // namespace

void meet(const Meeting& meeting, uint32_t mask, void* argument, const Site& site) {
  const Thread& me = *block.running;
  const uint32_t live = block.warp_of(me).live;
  if ((mask >> me.lane() & 1) == 0) fail(format("%s: the calling lane is not in its mask %08x", meeting.name, mask), site);
  if ((mask & ~live) != 0) fail(format("%s: mask %08x names lanes that have exited or do not exist (live: %08x)", meeting.name, mask, live), site);
  Collective& collective = collective_for(meeting, mask, site);
  collective.arguments[me.lane()] = argument;
  collective.arrived |= 1u << me.lane();
  if (collective.arrived != mask) return wait_as(State::at_collective, site);
  ++counts.collectives;
  meeting.act(collective.arguments, mask);
  collective.open = false;
  const unsigned first = me.warp() * kWarp;
  for (unsigned lane = 0; lane < kWarp; ++lane)
    if ((mask >> lane & 1) != 0 && lane != me.lane()) wake(static_cast<uint16_t>(first + lane));
}

uint32_t whole_warp(const char* name, const Site& site) {
  if ((block.running->warp() + 1) * kWarp > block.threads_count) fail(format("%s in a warp that has fewer than 32 threads", name), site);
  return 0xffffffffu;
}

namespace {

// Only a synchronisation of all lanes that are left orders memory for the checker.
void order_memory(void**, uint32_t mask) {
  const Thread& me = *block.running;
  if (mask == block.warp_of(me).live) block.clocks.join(1u << me.warp());
}

}  // namespace

void sync_warp(uint32_t mask, const Site& site) {
  static const Meeting meeting{1, "__syncwarp", false, order_memory};
  const unsigned first = block.running->warp() * kWarp;
  if (first + kWarp > block.threads_count) mask &= (1u << (block.threads_count - first)) - 1;
  meet(meeting, mask, nullptr, site);
}

namespace {

struct ShuffleArgument {
  uint64_t value, result;
  int source, width;
  Shuffle kind;
};

int source_lane(const ShuffleArgument& a, int lane) {
  const int segment = lane / a.width * a.width, inside = lane % a.width;
  switch (a.kind) {
    case Shuffle::index: return segment + (a.source & (a.width - 1));
    case Shuffle::up: return inside < a.source ? lane : lane - a.source;
    case Shuffle::down: return inside + a.source >= a.width ? lane : lane + a.source;
    case Shuffle::exclusive_or: return (lane ^ a.source) >= segment + a.width ? lane : lane ^ a.source;
  }
  return lane;
}

void exchange(void** arguments, uint32_t mask) {
  for (int lane = 0; lane < static_cast<int>(kWarp); ++lane) {
    if ((mask >> lane & 1) == 0) continue;
    auto& a = *static_cast<ShuffleArgument*>(arguments[lane]);
    const int from = source_lane(a, lane);
    // A lane outside of the mask gives anything; here NaN.
    a.result = (mask >> from & 1) != 0 ? static_cast<ShuffleArgument*>(arguments[from])->value : ~uint64_t{0};
  }
}

}  // namespace

uint64_t shuffle(Shuffle kind, uint32_t mask, uint64_t value, int source, int width, const Site& site) {
  static const Meeting meeting{2, "__shfl_sync", false, exchange};
  ShuffleArgument argument{value, value, source, width, kind};
  meet(meeting, mask, &argument, site);
  return argument.result;
}

namespace {

struct BallotArgument {
  bool predicate;
  uint32_t result;
};

void count_votes(void** arguments, uint32_t mask) {
  uint32_t votes = 0;
  for (unsigned lane = 0; lane < kWarp; ++lane)
    if ((mask >> lane & 1) != 0 && static_cast<BallotArgument*>(arguments[lane])->predicate) votes |= 1u << lane;
  for (unsigned lane = 0; lane < kWarp; ++lane)
    if ((mask >> lane & 1) != 0) static_cast<BallotArgument*>(arguments[lane])->result = votes;
}

}  // namespace

uint32_t ballot(uint32_t mask, bool predicate, const Site& site) {
  static const Meeting meeting{3, "__ballot_sync", false, count_votes};
  BallotArgument argument{predicate, 0};
  meet(meeting, mask, &argument, site);
  return argument.result;
}

}  // namespace cusim
