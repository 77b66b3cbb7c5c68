// A stack of one's own and the switch between two of them. A CUDA thread is a fiber.
#pragma once
#include <cstddef>

namespace cusim {

struct Fiber {
  void* stack_pointer = nullptr;
  unsigned char* stack = nullptr;  // kStackBytes, the lowest kGuardBytes a guard; nullptr: the host's own stack
};

constexpr size_t kPage = 4096;
constexpr size_t kGuardBytes = 64 << 10;  // a function's frame may be larger than a page, and step over it
constexpr size_t kStackBytes = (128 << 10) + kGuardBytes;

// Makes `fiber` begin at `entry`, which must never return. Keeps the stack that the fiber already has.
void prepare(Fiber& fiber, void (*entry)());
void switch_to(Fiber& from, const Fiber& to);
// True if `address` lies in the guard of the fiber's stack.
bool overflowed(const Fiber& fiber, const void* address);

}  // namespace cusim
