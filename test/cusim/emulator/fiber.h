// A stack of one's own and the switch between two of them. A CUDA thread is a fiber.
#pragma once
#include <cstddef>

namespace cusim {

struct Fiber {
  void* stack_pointer = nullptr;
  unsigned char* stack = nullptr;  // kStackBytes, the lowest page a guard; nullptr: the host's own stack
};

constexpr size_t kPage = 4096;
constexpr size_t kStackBytes = 128 << 10;

// Makes `fiber` begin at `entry`, which must never return. Keeps the stack that the fiber already has.
void prepare(Fiber& fiber, void (*entry)());
void switch_to(Fiber& from, const Fiber& to);
// True if `address` lies in the guard page of the fiber's stack.
bool overflowed(const Fiber& fiber, const void* address);

}  // namespace cusim
