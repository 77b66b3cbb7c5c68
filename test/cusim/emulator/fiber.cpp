#include "fiber.h"

#include <sys/mman.h>

#include <new>

#if !defined(__x86_64__)
#error "the emulator's fiber switch is written for x86-64"
#endif

// Saves the registers that a function must keep, exchanges stacks, restores. System V x86-64.
extern "C" __attribute__((visibility("hidden"))) void cusim_switch_stacks(void** save, void* load);
asm(R"(
.text
.globl cusim_switch_stacks
.hidden cusim_switch_stacks
.type cusim_switch_stacks,@function
cusim_switch_stacks:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size cusim_switch_stacks,.-cusim_switch_stacks
)");

namespace cusim {

namespace {

unsigned char* new_stack() {
  void* memory = mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  mprotect(memory, kGuardBytes, PROT_NONE);
  return static_cast<unsigned char*>(memory);
}

}  // namespace

void prepare(Fiber& fiber, void (*entry)()) {
  if (fiber.stack == nullptr) fiber.stack = new_stack();
  auto** top = reinterpret_cast<void**>(fiber.stack + kStackBytes);
  *--top = nullptr;  // where entry would return to; also makes the stack's alignment that of a called function
  *--top = reinterpret_cast<void*>(entry);
  for (int saved = 0; saved < 6; ++saved) *--top = nullptr;
  fiber.stack_pointer = top;
}

void switch_to(Fiber& from, const Fiber& to) { cusim_switch_stacks(&from.stack_pointer, to.stack_pointer); }

bool overflowed(const Fiber& fiber, const void* address) {
  const auto* at = static_cast<const unsigned char*>(address);
  return fiber.stack != nullptr && at >= fiber.stack && at < fiber.stack + kGuardBytes;
}

}  // namespace cusim
