// Which tile a block of a flash kernel works on. Blocks start in their order and a tile's work grows with what it sees, so the longest
// come first: else one that starts late outlasts all others. Heads are neighbours, since their tiles take equally long.
#pragma once
#include "attention_view.cuh"
#include "queue.h"

namespace lowrank::cuda {

// What a tile is made of: rows of queries, that see keys, or keys, that are seen by rows.
enum class TilesOf { rows, keys };

// What a block works on. It lies in shared memory, and is read where it is needed: registers are for fragments.
struct Place {
  int32_t first;  // row of queries, or key
  int32_t g;      // kv head
};

// Blocks (kv head, tile): the tiles of a launch.
struct TileOrder {
  const int32_t* tiles;  // nullptr: the longest is the last one of rows, or the first one of keys
  int32_t count;
  Divisor kv_heads;

  // The block's, of tiles of `size`; there is a barrier in it.
  template <TilesOf kOf>
  GPU_FN void find(Place* place, int32_t size) const {
    if (threadIdx.x == 0) {
      const auto block = static_cast<int32_t>(blockIdx.x), turn = kv_heads.quotient(block);
      const int32_t tile = tiles != nullptr ? tiles[turn] : kOf == TilesOf::rows ? count - 1 - turn : turn;
      *place = {tile * size, block - turn * kv_heads.value};
    }
    __syncthreads();
  }
  unsigned blocks() const { return static_cast<unsigned>(count) * static_cast<unsigned>(kv_heads.value); }
};

// Tiles of `size` rows or keys. One sequence is in order as it is; where several are, and some blocks wait for others, the device sorts.
template <class T>
TileOrder longest_first(Queue& queue, const AttentionView<T>& view, TilesOf of, int32_t size, int32_t kv_heads);

}  // namespace lowrank::cuda
