// Memory of a device that somebody else reads or writes for a while (an exported tensor). It comes back from any thread, at any time, even
// when the device has been closed; the pool belongs to one thread. So what comes back waits here for that thread.
#pragma once
#include <atomic>
#include <memory>
#include <mutex>
#include <vector>

namespace lowrank {

class Loans {
 public:
  using Owners = std::vector<std::shared_ptr<void>>;  // what keeps the bytes

  // Any thread.
  void give_back(Owners owners) {
    const std::lock_guard lock(mutex_);
    if (closed_) return owners.clear();  // nobody allocates any more; one at a time under the lock
    returned_.push_back(std::move(owners));
    waiting_ = true;
  }
  // On the thread that owns the device, before it looks at its memory.
  void collect() {
    if (!waiting_) return;
    const std::lock_guard lock(mutex_);
    returned_.clear();
    waiting_ = false;
  }
  // On that thread, when the device is closed: from now on what comes back ends where it comes from.
  void close() {
    const std::lock_guard lock(mutex_);
    returned_.clear();
    closed_ = true;
  }

 private:
  std::mutex mutex_;
  std::atomic<bool> waiting_{false};
  bool closed_ = false;
  std::vector<Owners> returned_;
};

}  // namespace lowrank
