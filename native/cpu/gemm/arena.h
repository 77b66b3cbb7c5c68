// Scratch that is used again. A kernel that multiplies once per chunk asks for the same blocks each time, but a Context hands
// out distinct blocks until the op ends; through an Arena the n-th request of each round gets the same block.
#pragma once
#include "../kernel.h"

namespace lowrank::cpu::LOWRANK_ISA {

class Arena {
 public:
  LOWRANK_INLINE void open(const Context& context, int worker) {
    outer_ = context;
    worker_ = worker;
    count_ = used_ = 0;
  }
  // The services of the outer context, all hands included.
  LOWRANK_INLINE Context shared() {
    used_ = 0;
    return Context{this, outer_.threads, outer_.frozen, run_shared, scratch, fail, nullptr};
  }
  // For use inside a task: work stays on this worker.
  LOWRANK_INLINE Context serial() {
    used_ = 0;
    return Context{this, 1, outer_.frozen, run_serial, scratch, fail, nullptr};
  }

 private:
  static constexpr int kBlocks = 32;

  // Out of line: an inline member would leave a weak symbol.
  static void run_shared(void* self, int64_t tasks, void (*task)(void*, int64_t, int), void* arg);
  static void run_serial(void* self, int64_t tasks, void (*task)(void*, int64_t, int), void* arg);
  static void* scratch(void* self, int worker, int64_t bytes);
  __attribute__((format(printf, 3, 4))) static void fail(void* self, const char* code, const char* format, ...);
  void* take(int64_t bytes);

  Context outer_;
  int worker_;
  int count_, used_;
  void* blocks_[kBlocks];
  int64_t bytes_[kBlocks];
};

}  // namespace lowrank::cpu::LOWRANK_ISA
