// What a test may choose about the next launches.
#pragma once
#include <cstddef>
#include <cstdint>

namespace cusim {

enum class Order { random, forward, reverse };           // in which ready threads, and blocks, take their turn
enum class CopyArrival { at_wait, at_issue };            // when the bytes of a cp.async land

struct Config {
  uint64_t seed = 1;  // LOWRANK_CUSIM_SEED in the environment, when a stream is made
  Order order = Order::random;
  CopyArrival copies = CopyArrival::at_wait;
  size_t device_bytes = size_t{16} << 30;  // of each device; LOWRANK_CUSIM_MEMORY in the environment, when a stream is made
  size_t shared_limit = 101376;  // bytes a block may have if its kernel asks for them: the 99 KiB of sm_86, sm_89 and sm_120; sm_90 has 227
};

extern Config config;

// What was done since the program began; a test may set it back.
struct Counts {
  uint64_t launches, threads, barriers, collectives, mma, ldmatrix_phases, ldmatrix_conflicts, async_copies, checked_accesses;
};

extern Counts counts;

}  // namespace cusim
