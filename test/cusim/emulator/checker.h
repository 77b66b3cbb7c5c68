// Checked mode: every load and store of a kernel is held to bounds, alignment, initialisation and order. It is on when kernels were
// compiled with -fsanitize=thread: the compiler then calls hooks (hooks.cpp) that are ours, libtsan is not linked.
#pragma once
#include <cstddef>
#include <cstdint>

#include "clock.h"
#include "report.h"

namespace cusim {

// History of one byte.
struct Cell {
  Event write;
  Event read;                  // the latest
  uint32_t reading_warps = 0;  // of the block of `read`, since it began to read
  uint16_t many_lanes = 0;     // 1: more than one thread has read
  uint16_t atomic = 0;         // 1: the last write was one

  bool operator==(const Cell&) const = default;
  bool belongs_to_other(uint32_t block) const { return write.block != block && read.block != block; }
};

enum class Touch { read, write, atomic };

// Where an access stands in the source: an instruction, or a site that is known.
struct Place {
  const void* instruction = nullptr;
  Site site;

  std::string text() const { return instruction != nullptr ? place_of(instruction) : site.text(); }
};

bool checked();
void set_checked();

// By `thread`, which need not be the running one (a warp's collective reads for all lanes). Fails the launch on a fault.
void check_access(uint16_t thread, const void* p, size_t bytes, Touch touch, const Place& place);
void check_aligned(const void* p, size_t alignment, size_t bytes, const Place& place);
// Shared bytes that are on their way (cp.async): written by nobody until they land.
void mark_in_flight(const void* p, size_t bytes);
void mark_landed(uint16_t thread, const void* p, size_t bytes);

// "4 bytes at offset 128 of x (128 bytes)"
std::string describe(const void* p, size_t bytes);

}  // namespace cusim
