// What g++ -fsanitize=thread calls at each load and store of a kernel. libtsan is not linked: these are the only definitions.
#include <cstdint>

#include "block.h"
#include "checker.h"

#define HOOK extern "C" __attribute__((visibility("hidden"))) void

namespace {

template <size_t kBytes, size_t kAlignment>
inline void hook(const void* p, cusim::Touch touch, const void* instruction) {
  if (cusim::block.running == nullptr) return;  // host code in the same file
  const cusim::Place place{instruction, {}};
  cusim::check_aligned(p, kAlignment, kBytes, place);
  cusim::check_access(cusim::block.running->linear, p, kBytes, touch, place);
}

void hook_range(const void* p, size_t bytes, cusim::Touch touch, const void* instruction) {
  if (cusim::block.running != nullptr) cusim::check_access(cusim::block.running->linear, p, bytes, touch, {instruction, {}});
}

}  // namespace

#define ACCESS_HOOKS(BYTES)                                                                                                              \
  HOOK __tsan_read##BYTES(void* p) { hook<BYTES, BYTES>(p, cusim::Touch::read, __builtin_return_address(0)); }                            \
  HOOK __tsan_write##BYTES(void* p) { hook<BYTES, BYTES>(p, cusim::Touch::write, __builtin_return_address(0)); }                          \
  HOOK __tsan_unaligned_read##BYTES(void* p) { hook<BYTES, 1>(p, cusim::Touch::read, __builtin_return_address(0)); }                      \
  HOOK __tsan_unaligned_write##BYTES(void* p) { hook<BYTES, 1>(p, cusim::Touch::write, __builtin_return_address(0)); }
ACCESS_HOOKS(1)
ACCESS_HOOKS(2)
ACCESS_HOOKS(4)
ACCESS_HOOKS(8)
ACCESS_HOOKS(16)
HOOK __tsan_read_range(void* p, size_t bytes) { hook_range(p, bytes, cusim::Touch::read, __builtin_return_address(0)); }
HOOK __tsan_write_range(void* p, size_t bytes) { hook_range(p, bytes, cusim::Touch::write, __builtin_return_address(0)); }
HOOK __tsan_init() { cusim::set_checked(); }
HOOK __tsan_func_entry(void*) {}
HOOK __tsan_func_exit() {}
HOOK __tsan_vptr_update(void**, void*) {}
HOOK __tsan_vptr_read(void**) {}

// Atomics of host code in the same file (std::atomic, std::shared_ptr): kernels have their own (atomic.h).
#define ATOMIC_HOOKS(BITS)                                                                                                                        \
  extern "C" __attribute__((visibility("hidden"))) uint##BITS##_t __tsan_atomic##BITS##_load(const volatile uint##BITS##_t* p, int) {              \
    return __atomic_load_n(p, __ATOMIC_SEQ_CST);                                                                                                  \
  }                                                                                                                                               \
  HOOK __tsan_atomic##BITS##_store(volatile uint##BITS##_t* p, uint##BITS##_t value, int) { __atomic_store_n(p, value, __ATOMIC_SEQ_CST); }       \
  extern "C" __attribute__((visibility("hidden"))) uint##BITS##_t __tsan_atomic##BITS##_fetch_add(volatile uint##BITS##_t* p, uint##BITS##_t value, int) { \
    return __atomic_fetch_add(p, value, __ATOMIC_SEQ_CST);                                                                                        \
  }
ATOMIC_HOOKS(32)
ATOMIC_HOOKS(64)
