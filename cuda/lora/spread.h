// Numbers of an adapter, or of u and v, are spread out in 16 bits over the slots of a border or of an operand: value i has its ranks side
// by side, once or several times, as what rounds to 16 bits (high) or what that leaves over (low).
#pragma once
#include <initializer_list>

#include "../queue.h"
#include "parts.h"

namespace lowrank::cuda {

// Which values: element (i, rank), or the flat B of a joined projection, whose row i has numbers for the ranks of its own part.
struct Ranked {
  const float* data = nullptr;
  int64_t value_pitch = 0, rank_pitch = 0;  // in elements
  bool flat_b = false;
};

constexpr int kMostCopies = 3;

// The slots of one value: `copies` of its ranks, then two for what is added to everything, then zeros.
struct Slots {
  int32_t count = 0;  // of slots
  int32_t copies = 0;
  bool low[kMostCopies] = {};
  bool padded = false;  // each part's ranks take a multiple of eight
  enum class Then : int32_t { zeros, ones, bias } then = Then::zeros;
  const float* bias = nullptr;  // [values]
};

constexpr int kMostSpreads = 3;

struct Spread {
  DType dtype = DType::bf16;
  void* to = nullptr;  // slot j of value i lies at to[i * value_pitch + j * slot_pitch]
  int64_t value_pitch = 0, slot_pitch = 0, values = 0;
  int64_t first = 0;  // of the values: `to` begins with this one
  Ranked from;
  PartList parts;
  Slots slots;
};

// One launch for all of them: each is small. Those without a place are left out.
void spread(Queue& queue, std::initializer_list<Spread> spreads);

}  // namespace lowrank::cuda
