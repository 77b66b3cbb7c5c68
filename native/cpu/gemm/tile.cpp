#include "tile_run.h"

namespace lowrank::cpu::LOWRANK_ISA {

// AMX's tiles are no tile of this kind (amx.h).
TileKernel tile_kernel(int64_t rows, int64_t vectors, Words words) {
  return words == Words::f32 ? kTiles<MultiplyF32>[rows - 1][vectors - 1] : pairs_kernel(rows, vectors);
}

}  // namespace lowrank::cpu::LOWRANK_ISA
