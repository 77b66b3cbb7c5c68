// Which tile a block of a flash kernel works on. Blocks start in their order and a tile's work grows with what it sees, so the longest
// come first: else one that starts late outlasts all others. Heads are neighbours, since their tiles take equally long.
#pragma once
#include "attention_view.cuh"
#include "queue.h"

namespace lowrank::cuda {

// What a tile is made of: rows of queries, that see keys, or keys, that are seen by rows.
enum class TilesOf { rows, keys };

// Blocks (kv head, tile): the tiles of a launch.
struct TileOrder {
  const int32_t* tiles;  // nullptr: the longest is the last one of rows, or the first one of keys
  int32_t count;
  Divisor kv_heads;

  GPU_FN int32_t kv_head() const { return static_cast<int32_t>(blockIdx.x) - place() * kv_heads.value; }
  template <TilesOf kOf>
  GPU_FN int32_t tile() const {
    if (tiles != nullptr) return tiles[place()];
    return kOf == TilesOf::rows ? count - 1 - place() : place();
  }
  GPU_FN int32_t place() const { return kv_heads.quotient(static_cast<int32_t>(blockIdx.x)); }
  unsigned blocks() const { return static_cast<unsigned>(count) * static_cast<unsigned>(kv_heads.value); }
};

// Tiles of `size` rows or keys. One sequence is in order as it is; where several are, the device sorts.
template <class T>
TileOrder longest_first(Queue& queue, const AttentionView<T>& view, TilesOf of, int32_t size, int32_t kv_heads);

}  // namespace lowrank::cuda
