#include "async_copy.h"

#include <cstring>

#include "block.h"
#include "checker.h"
#include "config.h"
#include "memory.h"

namespace cusim {

namespace {

void land(const AsyncCopies::Copy& copy) {
  if (checked()) mark_landed(block.running->linear, copy.to, copy.bytes);
  if (copy.source_bytes > 0) memcpy(copy.to, copy.from, copy.source_bytes);
  memset(copy.to + copy.source_bytes, 0, copy.bytes - copy.source_bytes);
}

void require_places(const AsyncCopies::Copy& copy, const Site& site) {
  const auto misaligned = [&](const void* p) { return reinterpret_cast<uintptr_t>(p) % copy.bytes != 0; };
  if (misaligned(copy.to)) fail("cp.async: the destination is misaligned: " + describe(copy.to, copy.bytes), site);
  if (copy.source_bytes > 0 && misaligned(copy.from)) fail("cp.async: the source is misaligned: " + describe(copy.from, copy.bytes), site);
  if (!shared_memory.holds(copy.to, copy.bytes)) fail("cp.async: the destination lies outside of shared memory: " + describe(copy.to, copy.bytes), site);
}

// In fast mode a source outside of its buffer must fault here, where the line is known, not at the wait.
void touch_source(const AsyncCopies::Copy& copy) {
  volatile unsigned char probe = copy.from[0];
  probe = copy.from[copy.source_bytes - 1];
  (void)probe;
}

}  // namespace

void async_copy(void* to, const void* from, size_t bytes, size_t source_bytes, const Site& site) {
  const AsyncCopies::Copy copy{static_cast<unsigned char*>(to), static_cast<const unsigned char*>(from), bytes, source_bytes};
  require_places(copy, site);
  ++counts.async_copies;
  block.running->waits = site;
  if (copy.source_bytes > 0 && !checked()) touch_source(copy);
  if (checked()) {
    if (source_bytes > 0) check_access(block.running->linear, from, source_bytes, Touch::read, {nullptr, site});
    check_access(block.running->linear, to, bytes, Touch::write, {nullptr, site});
  }
  if (config.copies == CopyArrival::at_issue) return land(copy);
  memset(to, 0xff, bytes);
  if (checked()) mark_in_flight(to, bytes);
  block.running->copies.open.push_back(copy);
}

void async_commit() {
  AsyncCopies& mine = block.running->copies;
  mine.groups.push_back(std::move(mine.open));
  mine.open.clear();
}

void async_wait(size_t under_way) {
  AsyncCopies& mine = block.running->copies;
  for (; mine.groups.size() - mine.landed > under_way; ++mine.landed) {
    for (const AsyncCopies::Copy& copy : mine.groups[mine.landed]) land(copy);
    mine.groups[mine.landed].clear();
  }
}

}  // namespace cusim
