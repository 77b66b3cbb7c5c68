// Whether there are AMX's tiles for bf16, and for this process: for the backend, and for the bench's measure of the processor.
#pragma once
#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace lowrank::cpu {

inline bool has_amx() {
  constexpr unsigned kBf16 = 1u << 22, kTile = 1u << 24;
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (d & kBf16) != 0 && (d & kTile) != 0;
}

// Tiles are 8 KiB of a thread's state, which Linux (5.16 and later, arch_prctl(2)) keeps only for a process that asks. From then on it refuses
// stacks for signals that have no room for them (sigaltstack(2)), and where a thread has such a stack it refuses the tiles.
inline bool ask_for_tiles() {
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM
  constexpr unsigned kTileStates = 3u << 17, kXsaveOn = 1u << 27;
  unsigned a = 0, b = 0, c = 0, d = 0, low = 0, high = 0;
  if (__get_cpuid(1, &a, &b, &c, &d) == 0 || (c & kXsaveOn) == 0) return false;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (low & kTileStates) == kTileStates && syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

}  // namespace lowrank::cpu
#endif
