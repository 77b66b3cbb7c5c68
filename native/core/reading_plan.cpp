#include "reading_plan.h"

#include <algorithm>

namespace lowrank {

namespace {

constexpr int64_t kNotQueued = int64_t{1} << 60, kNever = int64_t{1} << 61;
constexpr int64_t kFresh = int64_t{1} << 30;  // what was read within the last so many bytes needs no second look

}  // namespace

int64_t ReadingPlan::add_work() {
  ++ticket_;
  if (batch_ended_) ++batch_, batch_begin_ = ticket_;
  batch_ended_ = false;
  return ticket_;
}

size_t ReadingPlan::known_of(const Extent& extent) {
  const auto [found, is_new] = by_begin_.try_emplace(extent.begin, known_.size());
  if (is_new) {
    known_.push_back({extent.begin, extent.bytes, extent.owner, false, 0, {}, -1, 0});
    return found->second;
  }
  Known& known = known_[found->second];
  if (known.owner.lock() == extent.owner && known.bytes == extent.bytes) return found->second;
  forget(known);  // another lies there now
  known.owner = extent.owner;
  known.bytes = extent.bytes;
  return found->second;
}

void ReadingPlan::add(const Extent& extent) {
  const size_t id = known_of(extent);
  Known& known = known_[id];
  drop_past(known);
  known.uses.push_back(ticket_);
  if (known.batch != batch_) known.batch = batch_, known.place = ticket_ - batch_begin_;
  queued_.push_back({ticket_, id});
}

void ReadingPlan::reach(int64_t ticket) {
  reached_ = ticket;
  while (!queued_.empty() && queued_.front().ticket < reached_) {
    queued_.pop_front();  // over, or never run: the work before it failed
    if (read_ > 0) --read_;
  }
}

bool ReadingPlan::take(int64_t budget, Reading& reading) {
  if (read_ == queued_.size()) return false;
  const Queued& queued = queued_[read_];
  const Known& known = known_[queued.known];
  reading.leaving.clear();
  if (!known.held && !make_room(budget - known.bytes, queued, reading.leaving)) return false;
  reading.extent = {known.begin, known.bytes, known.owner.lock()};
  reading.known = queued.known;
  reading.held = known.held;
  reading.fresh = known.held && read_bytes_ - known.looked < std::min(kFresh, budget / 4);
  return true;
}

void ReadingPlan::done(const Reading& reading, bool good) {
  Known& known = known_[reading.known];
  if (!good) forget(known);
  if (good && !known.held) held_bytes_ += known.bytes, known.held = true;
  if (!reading.fresh) read_bytes_ += known.bytes, known.looked = read_bytes_;
  // The stream may have gone past it meanwhile, over work that was skipped.
  if (read_ < queued_.size() && queued_[read_].known == reading.known) ++read_;
}

// Leaves at most so many bytes held, by what is used later than `coming`. What work waits for comes in whatever is left.
bool ReadingPlan::make_room(int64_t bytes, const Queued& coming, std::vector<Extent>& leaving) {
  int64_t later = 0;
  for (Known& known : known_)
    if (known.held && next_use(known) > coming.ticket) later += known.bytes;
  if (held_bytes_ - later > bytes && coming.ticket > reached_) return false;
  while (held_bytes_ > bytes) {
    Known* last = last_behind(coming.ticket);
    if (last == nullptr) return true;
    forget(*last);
    if (std::shared_ptr<void> owner = last->owner.lock()) leaving.push_back({last->begin, last->bytes, std::move(owner)});
  }
  return true;
}

// Of what is held, what is used last; nullptr: all of it before or by `ticket`.
ReadingPlan::Known* ReadingPlan::last_behind(int64_t ticket) {
  Known* last = nullptr;
  for (Known& known : known_) {
    if (!known.held) continue;
    if (const int64_t use = next_use(known); use > ticket) last = &known, ticket = use;
  }
  return last;
}

bool ReadingPlan::take_more_room(const Reading& reading, Extent& leaving) {
  if (read_ == queued_.size() || queued_[read_].known != reading.known) return false;
  Known* last = last_behind(queued_[read_].ticket);
  if (last == nullptr) return false;
  forget(*last);
  leaving = {last->begin, last->bytes, last->owner.lock()};
  return true;
}

int64_t ReadingPlan::next_use(Known& known) const {
  drop_past(known);
  if (known.owner.expired()) return kNever;
  return known.uses.empty() ? kNotQueued + known.place : known.uses.front();
}

void ReadingPlan::drop_past(Known& known) const {
  while (!known.uses.empty() && known.uses.front() < reached_) known.uses.pop_front();
}

void ReadingPlan::forget(Known& known) {
  if (known.held) held_bytes_ -= known.bytes;
  known.held = false;
}

}  // namespace lowrank
