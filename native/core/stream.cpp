#include "stream.h"

#include <new>
#include <utility>

#include "signals_blocked.h"

namespace lowrank {

Stream::Stream() {
  const SignalsBlocked blocked;
  thread_ = std::thread([this] { loop(); });
}

void Stream::enqueue(const char* op, When when, Work work) {
  std::unique_lock lock(mutex_);
  if (!stopped_) {
    queue_.push_back({op, when, ++sequence_, std::move(work)});
    lock.unlock();
    wake_.notify_one();
  } else if (when == When::always) {
    lock.unlock();
    Failure failure{};
    work(failure);
  }
}

void Stream::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_one();
  if (thread_.joinable()) thread_.join();
  const std::lock_guard lock(mutex_);
  stopped_ = true;
}

StreamFailure Stream::take_failure() { return std::exchange(failed_, {}); }

void Stream::run(Item& item) {
  if (item.when == When::healthy && failed_.failure.happened()) return;
  Failure failure{};
  try {
    item.work(failure);
  } catch (const std::bad_alloc&) {
    failure.set("ERR_MEMORY", "out of host memory");
  }
  if (failure.happened() && !failed_.failure.happened()) failed_ = {failure, item.op, item.sequence};
}

// A fence behind dropped work must not say that all is well.
void Stream::drop(const Item& item) {
  if (failed_.failure.happened()) return;
  failed_ = {{}, item.op, item.sequence};
  failed_.failure.set("ERR_DISPOSED", "%s: the device was closed before this ran", item.op);
}

void Stream::loop() {
  for (;;) {
    std::unique_lock lock(mutex_);
    wake_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
    if (queue_.empty()) return;
    Item item = std::move(queue_.front());
    queue_.pop_front();
    const bool dropped = stopping_ && item.when == When::healthy;
    lock.unlock();
    if (dropped) {
      drop(item);
    } else {
      run(item);
    }
  }
}

}  // namespace lowrank
