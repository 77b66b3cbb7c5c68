#include "barrier.h"

#include "block.h"
#include "config.h"
#include "warp.h"

namespace cusim {

namespace {

// The last of those that a barrier waits for has come; `warps` go on, with those that waited.
void release(Barrier& barrier, uint32_t warps) {
  ++counts.barriers;
  for (const uint16_t thread : barrier.waiting) warps |= 1u << (thread / kWarp);
  block.clocks.join(warps, barrier.seen);
  std::vector<uint16_t> waiting;
  waiting.swap(barrier.waiting);
  barrier.arrived = 0;
  barrier.seen = {};
  for (const uint16_t thread : waiting) wake(thread);
}

void wait_at(Barrier& barrier, const Site& site) {
  if (barrier.counted() + 1 == barrier.expected) {
    release(barrier, 1u << block.running->warp());
    return give_way();
  }
  barrier.waiting.push_back(block.running->linear);
  wait_as(State::at_barrier, site);
}

Barrier& named(const char* name, int id, int threads, const Site& site) {
  if (id < 0 || id >= static_cast<int>(kNamedBarriers)) fail(format("%s: there is no barrier %d", name, id), site);
  if (threads <= 0 || threads % static_cast<int>(kWarp) != 0) fail(format("%s: the count must be a multiple of 32 (found %d)", name, threads), site);
  Barrier& barrier = block.barriers[id];
  if (barrier.counted() == 0) {
    barrier.expected = static_cast<unsigned>(threads);
    barrier.site = site;
  } else if (barrier.expected != static_cast<unsigned>(threads)) {
    fail(format("%s: threads name different counts (%u at %s)", name, barrier.expected, barrier.site.text().c_str()), site);
  }
  return barrier;
}

void arrive(void** arguments, uint32_t) {
  Barrier& barrier = *static_cast<Barrier*>(arguments[0]);
  block.clocks.leave(block.running->warp(), barrier.seen);
  barrier.arrived += kWarp;
  if (barrier.counted() == barrier.expected) release(barrier, 0);
}

}  // namespace

void sync_threads(const Site& site) {
  Barrier& barrier = block.barriers[0];
  if (block.live != block.threads_count) fail("barrier divergence: some threads of the block have exited", site);
  if (barrier.counted() == 0) {
    barrier.expected = block.threads_count;
    barrier.site = site;
  } else if (barrier.expected != block.threads_count || !(barrier.site == site)) {
    fail("barrier divergence: other threads of the block wait at " + barrier.site.text(), site);
  }
  wait_at(barrier, site);
}

void sync_named(int id, int threads, const Site& site) { wait_at(named("bar.sync", id, threads, site), site); }

void arrive_named(int id, int threads, const Site& site) {
  static const Meeting meeting{4, "bar.arrive", true, arrive};
  Barrier& barrier = named("bar.arrive", id, threads, site);
  meet(meeting, whole_warp("bar.arrive", site), &barrier, site);
}

}  // namespace cusim
