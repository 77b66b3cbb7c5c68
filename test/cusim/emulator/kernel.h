// What a kernel's source sees when g++ compiles it for the emulator: the words of CUDA C++ that kernels here use, and no more.
#pragma once
#include <cstdint>
#include <cstring>

#include "async_copy.h"
#include "atomic.h"
#include "barrier.h"
#include "builtins.h"
#include "dim3.h"
#include "launch.h"
#include "matrix.h"
#include "warp.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define CUSIM_SITE const char *file = __builtin_FILE(), int line = __builtin_LINE()

struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(8) uint2 { uint32_t x, y; };
struct alignas(16) uint4 { uint32_t x, y, z, w; };
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint4 make_uint4(uint32_t x, uint32_t y, uint32_t z, uint32_t w) { return {x, y, z, w}; }

namespace cusim {
unsigned char* shared_bytes();
}  // namespace cusim

#define threadIdx (::cusim::thread_index)
#define blockIdx (::cusim::block_index)
#define blockDim (::cusim::block_size)
#define gridDim (::cusim::grid_size)

inline void __syncthreads(CUSIM_SITE) { cusim::sync_threads({file, line}); }
inline void __syncwarp(uint32_t mask = 0xffffffffu, CUSIM_SITE) { cusim::sync_warp(mask, {file, line}); }
inline void __threadfence() { cusim::thread_fence(); }

namespace cusim {
template <class T>
T shuffle_value(Shuffle kind, uint32_t mask, T value, int source, int width, const Site& site) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "shuffles move 4 or 8 bytes");
  uint64_t bits = 0;
  __builtin_memcpy(&bits, &value, sizeof value);
  bits = shuffle(kind, mask, bits, source, width, site);
  __builtin_memcpy(&value, &bits, sizeof value);
  return value;
}
}  // namespace cusim

template <class T>
T __shfl_sync(uint32_t mask, T value, int source, int width = 32, CUSIM_SITE) {
  return cusim::shuffle_value(cusim::Shuffle::index, mask, value, source, width, {file, line});
}
template <class T>
T __shfl_up_sync(uint32_t mask, T value, int delta, int width = 32, CUSIM_SITE) {
  return cusim::shuffle_value(cusim::Shuffle::up, mask, value, delta, width, {file, line});
}
template <class T>
T __shfl_down_sync(uint32_t mask, T value, int delta, int width = 32, CUSIM_SITE) {
  return cusim::shuffle_value(cusim::Shuffle::down, mask, value, delta, width, {file, line});
}
template <class T>
T __shfl_xor_sync(uint32_t mask, T value, int lanes, int width = 32, CUSIM_SITE) {
  return cusim::shuffle_value(cusim::Shuffle::exclusive_or, mask, value, lanes, width, {file, line});
}
inline uint32_t __ballot_sync(uint32_t mask, bool predicate, CUSIM_SITE) { return cusim::ballot(mask, predicate, {file, line}); }
inline bool __any_sync(uint32_t mask, bool predicate, CUSIM_SITE) { return cusim::ballot(mask, predicate, {file, line}) != 0; }
inline bool __all_sync(uint32_t mask, bool predicate, CUSIM_SITE) { return cusim::ballot(mask, predicate, {file, line}) == mask; }

// One thread runs at a time, so the operation itself needs no lock; the checker sees it as an atomic, not as a load and a store.
#define CUSIM_ATOMIC(NAME, RESULT)                                                            \
  template <class T>                                                                          \
  __attribute__((no_sanitize("thread"))) T NAME(T* at, T value, CUSIM_SITE) {                 \
    cusim::atomic_access(at, sizeof(T), {file, line});                                        \
    const T old = *at;                                                                        \
    *at = (RESULT);                                                                           \
    return old;                                                                               \
  }
CUSIM_ATOMIC(atomicAdd, static_cast<T>(old + value))
CUSIM_ATOMIC(atomicMin, old < value ? old : value)
CUSIM_ATOMIC(atomicMax, old > value ? old : value)
CUSIM_ATOMIC(atomicExch, value)
template <class T>
__attribute__((no_sanitize("thread"))) T atomicCAS(T* at, T expected, T value, CUSIM_SITE) {
  cusim::atomic_access(at, sizeof(T), {file, line});
  const T old = *at;
  if (old == expected) *at = value;
  return old;
}

inline uint32_t __umulhi(uint32_t a, uint32_t b) { return static_cast<uint32_t>(static_cast<uint64_t>(a) * b >> 32); }
inline int __popc(uint32_t bits) { return __builtin_popcount(bits); }
