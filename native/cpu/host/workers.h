// The worker pool of one CPU device: the stream thread and threads() - 1 others.
#pragma once
#include <stdint.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

namespace lowrank::cpu {

class Workers {
 public:
  using Task = void (*)(void* arg, int64_t i, int worker);

  explicit Workers(int threads);  // at most so many, at least 1
  Workers(const Workers&) = delete;
  Workers& operator=(const Workers&) = delete;
  ~Workers();

  int threads() const { return static_cast<int>(threads_.size()) + 1; }
  // task(arg, i, worker) for i in [0, tasks); the caller is worker 0. Not reentrant.
  void run(int64_t tasks, Task task, void* arg);

 private:
  struct Job {
    Task task = nullptr;
    void* arg = nullptr;
    int64_t tasks = 0;
  };
  // The state of a round in one number, so that entering and closing exclude each other: how many workers are inside, whether the
  // round is open, which one it is.
  static constexpr uint64_t kInside = (1 << 16) - 1, kOpen = 1 << 16, kRound = 1 << 17;

  void loop(int worker);
  void work(const Job& job, int worker);
  bool has_news(uint64_t seen) const;
  bool wait_for_round(uint64_t seen);
  bool enter(uint64_t& seen);
  void leave();
  void wait_for_workers();

  std::vector<std::thread> threads_;
  Job job_;  // written while nobody is inside
  std::atomic<int64_t> next_{0};
  std::atomic<uint64_t> gate_{0};
  std::atomic<bool> stopping_{false};
  std::mutex mutex_;
  std::condition_variable wake_;
};

// How this thread computes while it lives: rounding to nearest, nothing trapped, denormals flushed to zero (an FMA with a denormal
// operand is 90 times slower; measured, AMD EPYC). Then as before: the thread may be somebody else's.
class FloatMode {
 public:
  FloatMode();
  FloatMode(const FloatMode&) = delete;
  FloatMode& operator=(const FloatMode&) = delete;
  ~FloatMode();

 private:
  uint64_t before_;
};

}  // namespace lowrank::cpu
