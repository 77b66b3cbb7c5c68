#include "workers.h"

#include <system_error>

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

void flush_denormals() {
#if defined(__x86_64__)
  _mm_setcsr(_mm_getcsr() | 0x8040);  // FTZ | DAZ
#elif defined(__aarch64__)
  uint64_t fpcr;
  __asm__ __volatile__("mrs %0, fpcr" : "=r"(fpcr));
  __asm__ __volatile__("msr fpcr, %0" ::"r"(fpcr | (1u << 24)));
#endif
}

Workers::Workers(int threads) {
  threads_.reserve(static_cast<size_t>(threads) - 1);
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
    busy_ = static_cast<int>(threads_.size());
    ++round_;
  }
  wake_.notify_all();
  work(job, 0);
  while (busy_ != 0) pause();
}

bool Workers::wait_for_job(uint64_t seen) {
  for (int i = 0; i < kSpins; ++i) {
    if (round_ != seen || stopping_) break;
    pause();
  }
  std::unique_lock lock(mutex_);
  wake_.wait(lock, [&] { return stopping_ || round_ != seen; });
  return !stopping_;
}

void Workers::loop(int worker) {
  flush_denormals();
  uint64_t seen = 0;
  while (wait_for_job(seen)) {
    seen = round_;
    work(job_, worker);
    --busy_;
  }
}

}  // namespace lowrank::cpu
