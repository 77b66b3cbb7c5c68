#include <map>

#include "block.h"
#include "config.h"
#include "memory.h"
#include "builtins.h"

namespace cusim {

Block block;
Index thread_index{}, block_index{};

namespace {

Fiber host;
std::string report;
std::vector<uint16_t> ready;
void (*thread_body)(void*);
void* body_argument;
uint64_t random_state = 1;

void resume(Fiber& from, Thread& next) {
  block.running = &next;
  thread_index = next.index;
  switch_to(from, next.fiber);
}

[[noreturn]] void back_to_host() {
  Fiber& mine = block.running->fiber;
  block.running = nullptr;
  switch_to(mine, host);
  __builtin_unreachable();
}

// All of them wait: says for what, by place.
std::string deadlock_report() {
  static const char* const kStates[] = {"ready", "at a barrier", "in a warp operation", "exited"};
  std::map<std::string, int> places;
  for (unsigned i = 0; i < block.threads_count; ++i) {
    const Thread& thread = block.threads[i];
    const std::string place = thread.state == State::exited ? "" : " at " + thread.waits.text();
    ++places[kStates[static_cast<int>(thread.state)] + place];
  }
  std::string text = format("cusim: deadlock: no thread of block (%u,%u,%u) can run:", block_index.x, block_index.y, block_index.z);
  for (const auto& [place, threads] : places) text += format("\n  %d %s", threads, place.c_str());
  return text + format("\n  in %s", block.kernel);
}

size_t choose() {
  if (config.order == Order::random) return random_number() % ready.size();
  size_t best = 0;
  for (size_t i = 1; i < ready.size(); ++i)
    if ((ready[i] < ready[best]) == (config.order == Order::forward)) best = i;
  return best;
}

Thread& take_ready() {
  const size_t at = choose();
  Thread& next = block.threads[ready[at]];
  ready[at] = ready.back();
  ready.pop_back();
  return next;
}

void run_others() {
  Thread& me = *block.running;
  if (ready.empty()) {
    if (block.live > 0) stop_block(deadlock_report());
    back_to_host();
  }
  Thread& next = take_ready();
  if (&next != &me) resume(me.fiber, next);
}

// A thread that leaves may leave others waiting for ever: at a barrier of the whole block, in a collective of its warp.
void refuse_desertion(const Thread& me) {
  for (const Collective& open : block.warp_of(me).collectives) {
    if (open.open && (open.mask >> me.lane() & 1) != 0) fail(format("a thread exits while its warp waits for it in %s", open.name), open.site);
  }
  for (const Barrier& barrier : block.barriers) {
    if (barrier.waiting.empty() || barrier.expected != block.threads_count) continue;
    fail(format("barrier divergence: a thread exits while %zu others wait at a barrier of the whole block", barrier.waiting.size()), barrier.site);
  }
}

// The last thread has left: who arrived at a barrier must have been waited for.
void refuse_lost_arrivals() {
  for (const Barrier& barrier : block.barriers) {
    if (barrier.arrived != 0) fail(format("bar.arrive: the block ends while %u of the %u threads that a barrier counts have arrived", barrier.arrived, barrier.expected), barrier.site);
  }
}

void run_thread() {
  thread_body(body_argument);
  Thread& me = *block.running;
  refuse_desertion(me);
  block.warp_of(me).live &= ~(1u << me.lane());
  --block.live;
  me.state = State::exited;
  if (block.live == 0) refuse_lost_arrivals();
  run_others();
  __builtin_unreachable();
}

void create_threads() {
  block.warps.assign((block.threads_count + kWarp - 1) / kWarp, Warp{});
  for (Barrier& barrier : block.barriers) barrier = {};
  ready.clear();
  for (unsigned i = 0; i < block.threads_count; ++i) {
    Thread& thread = block.threads[i];
    thread.linear = static_cast<uint16_t>(i);
    thread.index = {i % block_size.x, i / block_size.x % block_size.y, i / (block_size.x * block_size.y)};
    thread.state = State::ready;
    thread.copies.clear();
    prepare(thread.fiber, run_thread);
    block.warp_of(thread).live |= 1u << thread.lane();
    ready.push_back(thread.linear);
  }
  block.live = block.threads_count;
}

}  // namespace

uint64_t random_number() {
  random_state ^= random_state << 13;
  random_state ^= random_state >> 7;
  random_state ^= random_state << 17;
  return random_state;
}

void seed_random(uint64_t seed) {
  random_state = seed * 0x9e3779b97f4a7c15ull | 1;
  for (int warm = 0; warm < 8; ++warm) random_number();
}

std::string name_of(const Thread& thread) {
  return format("block (%u,%u,%u) thread (%u,%u,%u) [warp %u lane %u], seed %llu", block_index.x, block_index.y, block_index.z, thread.index.x,
                thread.index.y, thread.index.z, thread.warp(), thread.lane(), static_cast<unsigned long long>(block.seed));
}

std::string run_block(void (*body)(void*), void* argument) {
  thread_body = body;
  body_argument = argument;
  report.clear();
  create_threads();
  block.clocks.begin_block(static_cast<unsigned>(block.warps.size()));
  shared_memory.begin_block();
  resume(host, take_ready());
  if (report.empty() && !shared_memory.end_is_intact()) report = format("cusim: write past the end of shared memory\n  in %s", block.kernel);
  return report;
}

void stop_block(const std::string& why) {
  report = why;
  back_to_host();
}

void wait_as(State state, const Site& site) {
  block.running->state = state;
  block.running->waits = site;
  run_others();
}

void wake(uint16_t thread) {
  block.threads[thread].state = State::ready;
  ready.push_back(thread);
}

void give_way() {
  wake(block.running->linear);
  run_others();
}

}  // namespace cusim
