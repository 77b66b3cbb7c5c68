// What the lanes of a warp do together.
#pragma once
#include <cstdint>

#include "report.h"

namespace cusim {

enum class Shuffle { index, up, down, exclusive_or };

// Every lane of `mask` comes with an argument; the last one calls act(arguments, mask), arguments by lane. `kind` tells operations
// apart; `aligned` ones (PTX .aligned) must stand at one place.
struct Meeting {
  int kind;
  const char* name;
  bool aligned;
  void (*act)(void** arguments, uint32_t mask);
};

void meet(const Meeting& meeting, uint32_t mask, void* argument, const Site& site);
// For operations of the whole warp only.
uint32_t whole_warp(const char* name, const Site& site);

void sync_warp(uint32_t mask, const Site& site);
uint64_t shuffle(Shuffle kind, uint32_t mask, uint64_t value, int source, int width, const Site& site);
uint32_t ballot(uint32_t mask, bool predicate, const Site& site);

}  // namespace cusim
