// The block that is running: its threads, warps and barriers, and who runs next. One block runs at a time, under one lock for the
// whole emulator; blocks of a launch follow each other in random order, threads take turns in random order.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "async_copy.h"
#include "builtins.h"
#include "clock.h"
#include "fiber.h"
#include "report.h"

namespace cusim {

constexpr unsigned kWarp = 32, kMaxThreads = 1024, kNamedBarriers = 16;

enum class State : uint8_t { ready, at_barrier, at_collective, exited };

struct Thread {
  Fiber fiber;
  Index index{};
  uint16_t linear = 0;
  State state = State::ready;
  Site waits;  // where it waits, or last copied
  AsyncCopies copies;

  unsigned lane() const { return linear % kWarp; }
  unsigned warp() const { return linear / kWarp; }
};

// A meeting of lanes: everyone leaves an argument, the last to arrive acts for all.
struct Collective {
  bool open = false;
  int kind = 0;
  const char* name = "";
  Site site;
  uint32_t mask = 0, arrived = 0;
  void* arguments[kWarp] = {};
};

struct Warp {
  uint32_t live = 0;  // lanes that exist and have not exited
  Collective collectives[4];
};

struct Barrier {
  unsigned expected = 0;
  Site site;
  std::vector<uint16_t> waiting;
  unsigned arrived = 0;  // threads that are counted and went on
  Seen seen;             // by them

  size_t counted() const { return waiting.size() + arrived; }
};

struct Block {
  bool active = false;  // a launch is running
  const char* kernel = "";
  uint64_t seed = 0;    // of the launch, for the report
  unsigned threads_count = 0, live = 0;
  Thread* running = nullptr;
  std::vector<Thread> threads;
  std::vector<Warp> warps;
  Barrier barriers[kNamedBarriers];
  Clocks clocks;

  Warp& warp_of(const Thread& thread) { return warps[thread.warp()]; }
};

extern Block block;

std::string name_of(const Thread& thread);

// Runs one block to its end; the report of what failed, or empty. `body` is called on each thread.
std::string run_block(void (*body)(void*), void* argument);
// Ends the block from any of its threads.
[[noreturn]] void stop_block(const std::string& report);

// The running thread waits for somebody to wake it; others run.
void wait_as(State state, const Site& site);
void wake(uint16_t thread);
// The running thread lets others go first.
void give_way();
uint64_t random_number();
void seed_random(uint64_t seed);

}  // namespace cusim
