#include "copy_crew.h"

#include <string.h>

#include <algorithm>
#include <system_error>

#include "signals_blocked.h"

namespace lowrank {

namespace {

// Half of the processors, since the rest has work too; but four where there are four, and no more than saturate a socket's memory.
constexpr size_t kFewHands = 4, kMostHands = 8;
constexpr int64_t kLarge = 1 << 20;  // below that waking somebody costs more than he saves

}  // namespace

void CopyCrew::start() {
  started_ = true;
  const size_t processors = std::max(1u, std::thread::hardware_concurrency());
  shares_.resize(std::clamp(processors / 2, std::min(kFewHands, processors), kMostHands) - 1);
  const SignalsBlocked blocked;
  try {
    for (size_t member = 0; member < shares_.size(); ++member) threads_.emplace_back([this, member] { loop(member); });
  } catch (const std::system_error&) {
    // those that there are do it
  }
}

void CopyCrew::copy(char* to, const char* from, int64_t bytes) {
  if (bytes >= kLarge && !started_) start();
  const auto hands = static_cast<int64_t>(threads_.size()) + 1;
  const int64_t share = bytes >= kLarge ? (bytes / hands + 4095) / 4096 * 4096 : bytes;
  if (share < bytes) {
    const std::lock_guard lock(mutex_);
    for (size_t member = 0; member < threads_.size(); ++member) {
      const int64_t begin = std::min(bytes, share * static_cast<int64_t>(member + 1));
      shares_[member] = {to + begin, from + begin, std::min(share, bytes - begin)};
      busy_ += shares_[member].bytes > 0 ? 1 : 0;
    }
    wake_.notify_all();
  }
  memcpy(to, from, static_cast<size_t>(std::min(share, bytes)));
  if (share >= bytes) return;
  std::unique_lock lock(mutex_);
  finished_.wait(lock, [this] { return busy_ == 0; });
}

void CopyCrew::loop(size_t member) {
  std::unique_lock lock(mutex_);
  for (;;) {
    wake_.wait(lock, [&] { return stopping_ || shares_[member].bytes > 0; });
    if (stopping_) return;
    const Share share = shares_[member];
    lock.unlock();
    memcpy(share.to, share.from, static_cast<size_t>(share.bytes));
    lock.lock();
    shares_[member].bytes = 0;
    if (--busy_ == 0) finished_.notify_one();
  }
}

void CopyCrew::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

}  // namespace lowrank
