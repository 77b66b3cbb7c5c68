#include "workers.h"

#include <system_error>

#include "../../core/signals_blocked.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace lowrank::cpu {

namespace {

// Ops follow each other within microseconds in a step; waking a sleeping thread costs 50 us. So a worker looks for this many
// turns (about 30 us) before it sleeps.
constexpr int kSpins = 1000;

void pause() {
#if defined(__x86_64__)
  _mm_pause();
#else
  std::this_thread::yield();
#endif
}

}  // namespace

#if defined(__x86_64__)
FloatMode::FloatMode() : before_(_mm_getcsr()) { _mm_setcsr(0x9fc0); }  // all exceptions masked, FTZ, DAZ
FloatMode::~FloatMode() { _mm_setcsr(static_cast<uint32_t>(before_)); }
#elif defined(__aarch64__)
FloatMode::FloatMode() {
  __asm__ __volatile__("mrs %0, fpcr" : "=r"(before_));
  __asm__ __volatile__("msr fpcr, %0" ::"r"(uint64_t{1} << 24));  // FZ
}
FloatMode::~FloatMode() { __asm__ __volatile__("msr fpcr, %0" ::"r"(before_)); }
#else
FloatMode::FloatMode() : before_(0) {}
FloatMode::~FloatMode() {}
#endif

Workers::Workers(int threads) {
  threads_.reserve(static_cast<size_t>(threads) - 1);
  const SignalsBlocked blocked;
  try {
    for (int worker = 1; worker < threads; ++worker) threads_.emplace_back([this, worker] { loop(worker); });
  } catch (const std::system_error&) {
    // The system gives no more threads (a container's limit): the pool is as large as it got, and results don't depend on it.
  }
}

Workers::~Workers() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void Workers::work(const Job& job, int worker) {
  for (int64_t i = next_.fetch_add(1); i < job.tasks; i = next_.fetch_add(1)) job.task(job.arg, i, worker);
}

// The caller doesn't wait for a worker that has not come yet: woken, it may stand in line behind the thread that queues what is next
// (JavaScript, for a millisecond) while the caller does all the tasks. Only those that are inside are waited for.
void Workers::run(int64_t tasks, Task task, void* arg) {
  const Job job{task, arg, tasks};
  if (threads_.empty() || tasks < 2) {
    for (int64_t i = 0; i < tasks; ++i) task(arg, i, 0);
    return;
  }
  {
    const std::lock_guard lock(mutex_);
    job_ = job;
    next_ = 0;
    gate_ = (gate_ | kOpen) + kRound;
  }
  wake_.notify_all();
  work(job, 0);
  gate_ &= ~kOpen;
  wait_for_workers();
}

void Workers::wait_for_workers() {
  for (int i = 0; i < kSpins; ++i) {
    if ((gate_ & kInside) == 0) return;
    pause();
  }
  for (uint64_t gate = gate_; (gate & kInside) != 0; gate = gate_) gate_.wait(gate);
}

bool Workers::has_news(uint64_t seen) const {
  const uint64_t gate = gate_;
  return stopping_ || ((gate & kOpen) != 0 && gate / kRound != seen);
}

bool Workers::wait_for_round(uint64_t seen) {
  for (int i = 0; i < kSpins && !has_news(seen); ++i) pause();
  std::unique_lock lock(mutex_);
  wake_.wait(lock, [&] { return has_news(seen); });
  return !stopping_;
}

bool Workers::enter(uint64_t& seen) {
  uint64_t gate = gate_;
  while ((gate & kOpen) != 0) {
    if (!gate_.compare_exchange_weak(gate, gate + 1)) continue;
    seen = gate / kRound;
    return true;
  }
  return false;
}

void Workers::leave() {
  const uint64_t gate = --gate_;
  if ((gate & kInside) == 0) gate_.notify_one();
}

void Workers::loop(int worker) {
  const FloatMode mode;
  uint64_t seen = 0;
  while (wait_for_round(seen)) {
    if (!enter(seen)) continue;
    work(job_, worker);
    leave();
  }
}

}  // namespace lowrank::cpu
