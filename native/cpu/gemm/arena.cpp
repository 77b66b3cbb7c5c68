#include "arena.h"

#include <stdarg.h>
#include <stdio.h>

namespace lowrank::cpu::LOWRANK_ISA {

void Arena::run_shared(void* self, int64_t tasks, void (*task)(void*, int64_t, int), void* arg) {
  const Context& outer = static_cast<Arena*>(self)->outer_;
  outer.run(outer.self, tasks, task, arg);
}

void Arena::run_serial(void*, int64_t tasks, void (*task)(void*, int64_t, int), void* arg) {
  for (int64_t i = 0; i < tasks; ++i) task(arg, i, 0);
}

void* Arena::scratch(void* self, int, int64_t bytes) { return static_cast<Arena*>(self)->take(bytes); }

void Arena::fail(void* self, const char* code, const char* format, ...) {
  char text[512];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  const Context& outer = static_cast<Arena*>(self)->outer_;
  outer.fail(outer.self, code, "%s", text);
}

void* Arena::take(int64_t bytes) {
  const int at = used_++;
  if (at < count_ && bytes_[at] >= bytes) return blocks_[at];
  void* block = outer_.scratch(outer_.self, worker_, bytes);
  if (block == nullptr || at >= kBlocks) return block;
  blocks_[at] = block, bytes_[at] = bytes;
  if (at >= count_) count_ = at + 1;
  return block;
}

}  // namespace lowrank::cpu::LOWRANK_ISA
