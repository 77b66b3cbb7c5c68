#include "clock.h"

#include <algorithm>
#include <cstring>

namespace cusim {

namespace {

constexpr unsigned warp_of(uint16_t thread) { return thread / 32; }

}  // namespace

void Clocks::begin_launch() {
  first_block_ = block_ + 1;
  published_.clear();
}

void Clocks::begin_block(unsigned warps) {
  ++block_;
  now_ = 1;
  warps_ = warps;
  memset(seen_, 0, sizeof seen_);
  memset(after_atomic_, 0, sizeof after_atomic_);
  memset(acquired_, 0, sizeof acquired_);
  has_fenced_ = false;
  published_.emplace_back();
}

void Clocks::leave(unsigned warp, Seen& left) {
  for (unsigned other = 0; other < warps_; ++other) left.before[other] = std::max(left.before[other], seen_[warp][other]);
  left.before[warp] = ++now_;
}

void Clocks::join(uint32_t warps, const Seen& left) {
  ++now_;
  uint32_t seen[kMaxWarps];
  std::copy(left.before, left.before + kMaxWarps, seen);
  bool acquired = false, after_atomic = false;
  for (unsigned w = 0; w < warps_; ++w) {
    if ((warps >> w & 1) == 0) continue;
    for (unsigned other = 0; other < warps_; ++other) seen[other] = std::max(seen[other], seen_[w][other]);
    acquired |= acquired_[w];
    after_atomic |= after_atomic_[w];
  }
  for (unsigned w = 0; w < warps_; ++w)
    if (warps >> w & 1) seen[w] = now_;
  for (unsigned w = 0; w < warps_; ++w) {
    if ((warps >> w & 1) == 0) continue;
    std::copy(seen, seen + kMaxWarps, seen_[w]);
    acquired_[w] = acquired;
    after_atomic_[w] = after_atomic;
  }
}

void Clocks::fence(uint16_t thread) {
  const unsigned warp = warp_of(thread);
  if (after_atomic_[warp]) acquired_[warp] = true;
  std::copy(seen_[warp], seen_[warp] + kMaxWarps, fenced_.seen);
  fenced_.self = thread;
  fenced_.self_time = now_ + 1;
  has_fenced_ = true;
}

void Clocks::atomic(uint16_t thread) {
  after_atomic_[warp_of(thread)] = true;
  if (has_fenced_ && fenced_.self == thread) published_[block_ - first_block_] = fenced_;
}

bool Clocks::published(const Event& event) const {
  const Published& by = published_[event.block - first_block_];
  if (event.time < by.seen[warp_of(event.thread)]) return true;
  return event.thread == by.self && event.time < by.self_time;
}

bool Clocks::ordered(const Event& event, uint16_t thread) const {
  if (event.block < first_block_) return true;
  if (event.block != block_) return acquired_[warp_of(thread)] && published(event);
  return event.thread == thread || event.time < seen_[warp_of(thread)][warp_of(event.thread)];
}

bool Clocks::ordered(uint32_t warps, uint32_t time, uint16_t thread) const {
  for (unsigned w = 0; w < warps_; ++w)
    if ((warps >> w & 1) != 0 && time >= seen_[warp_of(thread)][w]) return false;
  return true;
}

}  // namespace cusim
