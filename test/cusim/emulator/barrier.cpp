#include "barrier.h"

#include "block.h"
#include "config.h"

namespace cusim {

namespace {

uint32_t warps_of(const Barrier& barrier) {
  uint32_t warps = 1u << block.running->warp();
  for (const uint16_t thread : barrier.waiting) warps |= 1u << (thread / kWarp);
  return warps;
}

void release(Barrier& barrier) {
  ++counts.barriers;
  block.clocks.join(warps_of(barrier));
  std::vector<uint16_t> waiting;
  waiting.swap(barrier.waiting);
  for (const uint16_t thread : waiting) wake(thread);
  give_way();
}

void arrive(Barrier& barrier, const Site& site) {
  if (barrier.waiting.size() + 1 == barrier.expected) return release(barrier);
  barrier.waiting.push_back(block.running->linear);
  wait_as(State::at_barrier, site);
}

}  // namespace

void sync_threads(const Site& site) {
  Barrier& barrier = block.barriers[0];
  if (block.live != block.threads_count) fail("barrier divergence: some threads of the block have exited", site);
  if (barrier.waiting.empty()) {
    barrier.expected = block.threads_count;
    barrier.site = site;
  } else if (barrier.expected != block.threads_count || !(barrier.site == site)) {
    fail("barrier divergence: other threads of the block wait at " + barrier.site.text(), site);
  }
  arrive(barrier, site);
}

void sync_named(int id, int threads, const Site& site) {
  if (id < 0 || id >= static_cast<int>(kNamedBarriers)) fail(format("bar.sync: there is no barrier %d", id), site);
  if (threads <= 0 || threads % static_cast<int>(kWarp) != 0) fail(format("bar.sync: the count must be a multiple of 32 (found %d)", threads), site);
  Barrier& barrier = block.barriers[id];
  if (barrier.waiting.empty()) {
    barrier.expected = static_cast<unsigned>(threads);
    barrier.site = site;
  } else if (barrier.expected != static_cast<unsigned>(threads)) {
    fail(format("bar.sync: threads name different counts (%u at %s)", barrier.expected, barrier.site.text().c_str()), site);
  }
  arrive(barrier, site);
}

}  // namespace cusim
