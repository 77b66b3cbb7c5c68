#include "read_ahead.h"

#include <system_error>
#include <utility>

#include "signals_blocked.h"

namespace lowrank {

void ReadAhead::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  arrived_.notify_all();
  if (thread_.joinable()) thread_.join();
}

bool ReadAhead::start() {
  if (off_) return false;
  if (thread_.joinable()) return true;
  const SignalsBlocked blocked;
  try {
    thread_ = std::thread([this] { loop(); });
  } catch (const std::system_error&) {
    off_ = true;  // the system gives no more threads
  }
  return !off_;
}

int64_t ReadAhead::expect(const std::vector<Extent>& reads) {
  if (reads.empty()) return 0;
  const std::lock_guard lock(mutex_);
  const bool first = std::exchange(batch_ended_, false);
  if (!destination_.wanted() || !start()) return first ? -1 : 0;
  const int64_t ticket = plan_.add_work();
  for (const Extent& extent : reads) plan_.add(extent);
  wake_.notify_one();
  return ticket;
}

void ReadAhead::end_batch() {
  const std::lock_guard lock(mutex_);
  batch_ended_ = true;
  plan_.end_batch();
}

void ReadAhead::reach(int64_t ticket, Failure& failure) {
  destination_.check(failure);
  if (ticket < 0) return;
  std::unique_lock lock(mutex_);
  plan_.reach(ticket);
  wake_.notify_one();
  if (plan_.ready(ticket)) return;
  const int64_t begin = Trace::now();
  arrived_.wait(lock, [this, ticket] { return stopping_ || plan_.ready(ticket); });
  if (trace_.on()) trace_.op("wait_for_weights", "", begin, Trace::now());
}

Destination::Outcome ReadAhead::bring(const ReadingPlan::Reading& reading) {
  return destination_.bring(reading, [this, &reading](Extent& leaving) {
    const std::lock_guard lock(mutex_);
    return plan_.take_more_room(reading, leaving);
  });
}

void ReadAhead::loop() {
  std::unique_lock lock(mutex_);
  int64_t stuck = -1;  // where the stream was when there was no room
  for (;;) {
    ReadingPlan::Reading reading;
    wake_.wait(lock, [&] { return stopping_ || (plan_.reached() != stuck && plan_.take(destination_.budget(), reading)); });
    if (stopping_) return;
    auto outcome = Destination::Outcome::there;
    if (!reading.fresh && reading.extent.owner != nullptr) {
      stuck = plan_.reached();
      lock.unlock();
      outcome = bring(reading);
      lock.lock();
    }
    if (outcome == Destination::Outcome::no_room) continue;
    stuck = -1;
    plan_.done(reading, outcome == Destination::Outcome::there);
    arrived_.notify_all();
  }
}

}  // namespace lowrank
