#include "checker.h"

#include <cstring>

#include "block.h"
#include "config.h"
#include "memory.h"
#include "operands.h"

namespace cusim {

Config config;
Counts counts;

namespace {

bool instrumented = false;

[[noreturn]] void fault(const std::string& what, const void* p, size_t bytes, const Place& place, int other = -1) {
  std::string report = what + ": " + describe(p, bytes);
  if (other >= 0) report += format("; the other thread is %d", other);
  fail(report, place.text());
}

// What may be touched: a byte range, and whether anybody of this launch can write it.
struct Bounds {
  const unsigned char* begin;
  const unsigned char* end;
  bool readable, writable;

  bool hold(const void* p, size_t bytes) const {
    const auto* at = static_cast<const unsigned char*>(p);
    return at >= begin && at + bytes <= end;
  }
};

Bounds bounds_of(const Operand& operand) {
  const auto* begin = static_cast<const unsigned char*>(operand.data);
  return {begin, begin + operand.bytes, true, operand.role != Role::read};
}

// Outputs come first: a tensor may be an input and an output of one op.
bool declared_bounds(const OperandScope& scope, const void* p, size_t bytes, Bounds& bounds) {
  bool found = false;
  for (const Operand& operand : scope.operands()) {
    if (!operand.holds(p, bytes)) continue;
    if (!found || operand.role != Role::read) bounds = bounds_of(operand);
    found = true;
  }
  return found;
}

bool device_bounds(const void* p, size_t bytes, Bounds& bounds) {
  if (const OperandScope* scope = OperandScope::current()) return declared_bounds(*scope, p, bytes, bounds);
  Allocation in;
  if (!device_memory.find(p, in)) return false;
  bounds = {in.begin, in.begin + in.bytes, true, true};
  return bounds.hold(p, bytes);
}

void check_order(Cell& cell, uint16_t thread, const void* p, size_t bytes, Touch touch, const Place& place) {
  const Clocks& clocks = block.clocks;
  const bool both_atomic = touch == Touch::atomic && cell.atomic != 0;
  if (!both_atomic && !clocks.ordered(cell.write, thread)) {
    fault(touch == Touch::read ? "race: read after a write that is not ordered before it" : "race: write after a write that is not ordered before it", p,
          bytes, place, cell.write.thread);
  }
  if (touch == Touch::read || both_atomic || cell.read.block == 0) return;
  const bool only_me = cell.read.thread == thread && cell.many_lanes == 0;
  const bool here = cell.read.block == clocks.block();
  const bool ordered = here ? only_me || clocks.ordered(cell.reading_warps, cell.read.time, thread) : clocks.ordered(cell.read, thread);
  if (!ordered) fault("race: write after a read that is not ordered before it", p, bytes, place, cell.read.thread);
}

void note(Cell& cell, uint16_t thread, Touch touch) {
  const Event event{block.clocks.block(), block.clocks.now(), thread};
  if (touch != Touch::read) {
    cell.write = event;
    cell.atomic = touch == Touch::atomic ? 1 : 0;
    return;
  }
  // Reads that come before this one for certain need no memory: whoever is ordered behind this one is ordered behind them.
  const bool only_me = cell.read.thread == thread && cell.many_lanes == 0;
  const bool alone = cell.read.block != event.block || only_me || block.clocks.ordered(cell.reading_warps, cell.read.time, thread);
  cell.many_lanes = alone ? 0 : 1;
  cell.reading_warps = (alone ? 0 : cell.reading_warps) | 1u << (thread / kWarp);
  cell.read = event;
}

const char* out_of_bounds(Touch touch) { return touch == Touch::read ? "read out of bounds" : "write out of bounds"; }

}  // namespace

bool checked() { return instrumented; }
void set_checked() { instrumented = true; }

std::string describe(const void* p, size_t bytes) {
  const auto* at = static_cast<const unsigned char*>(p);
  if (shared_memory.space().contains(p)) return format("%zu bytes at offset %td of shared memory (%zu bytes)", bytes, at - shared_memory.data(), shared_memory.bytes());
  const Operand* nearest = nullptr;
  if (const OperandScope* scope = OperandScope::current()) {
    for (const Operand& operand : scope->operands()) {
      const auto distance = [at](const Operand& o) { return std::abs(at - static_cast<const unsigned char*>(o.data)); };
      if (nearest == nullptr || operand.holds(p, 1) || (!nearest->holds(p, 1) && distance(operand) < distance(*nearest))) nearest = &operand;
    }
  }
  if (nearest != nullptr) {
    return format("%zu bytes at offset %td of %s (%zu bytes)", bytes, at - static_cast<const unsigned char*>(nearest->data), nearest->name, nearest->bytes);
  }
  Allocation in;
  if (!device_memory.find(p, in)) return format("%zu bytes at %p", bytes, p);
  return format("%zu bytes at offset %td of %s (%zu bytes)", bytes, at - in.begin, in.name.c_str(), in.bytes);
}

void check_access(uint16_t thread, const void* p, size_t bytes, Touch touch, const Place& place) {
  const bool is_shared = shared_memory.space().contains(p);
  if (!is_shared && !device_memory.space().contains(p)) return;  // the kernel's own stack
  ++counts.checked_accesses;
  const Space& space = is_shared ? shared_memory.space() : device_memory.space();
  Bounds bounds{shared_memory.data(), shared_memory.data() + shared_memory.bytes(), true, true};
  if (is_shared ? !bounds.hold(p, bytes) : !device_bounds(p, bytes, bounds)) fault(out_of_bounds(touch), p, bytes, place);
  if (touch != Touch::read && !bounds.writable) fault("write to an operand that is only read", p, bytes, place);
  uint8_t* written = space.written + space.offset(p);
  if (touch != Touch::write && memchr(written, 0, bytes) != nullptr) fault("read of bytes that nobody wrote", p, bytes, place);
  if (touch != Touch::read) memset(written, 1, bytes);
  if (!bounds.writable) return;  // what nobody writes can't be raced for
  Cell before, after;
  for (Cell* cell = space.cells + space.offset(p), *end = cell + bytes; cell < end; ++cell) {
    const bool like_the_last = cell != end - bytes && *cell == before;  // bytes of one number have one history
    before = *cell;
    if (!like_the_last) {
      if (is_shared && cell->belongs_to_other(block.clocks.block())) *cell = {};
      check_order(*cell, thread, p, bytes, touch, place);
      note(*cell, thread, touch);
      after = *cell;
    }
    *cell = after;
  }
}

void check_aligned(const void* p, size_t alignment, size_t bytes, const Place& place) {
  if (reinterpret_cast<uintptr_t>(p) % alignment == 0) return;
  if (shared_memory.space().contains(p) || device_memory.space().contains(p)) fault(format("an access of %zu bytes is misaligned", bytes), p, bytes, place);
}

void mark_in_flight(const void* p, size_t bytes) {
  const Space& space = shared_memory.space();
  for (size_t i = 0; i < bytes; ++i) space.written[space.offset(p) + i] = 0;
}

void mark_landed(uint16_t thread, const void* p, size_t bytes) {
  const Space& space = shared_memory.space();
  for (size_t i = 0, offset = space.offset(p); i < bytes; ++i) {
    space.written[offset + i] = 1;
    note(space.cells[offset + i], thread, Touch::write);
  }
}

}  // namespace cusim
