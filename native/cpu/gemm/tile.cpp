#include "tile.h"

namespace lowrank::cpu::LOWRANK_ISA {

namespace {

using D = hn::ScalableTag<float>;
using V = hn::Vec<D>;

template <int rows, int vectors>
void run_tile(const Tile& tile) {
  const D d;
  V sum[rows][vectors];
  HWY_UNROLL(14)
  for (int i = 0; i < rows; ++i) {
    HWY_UNROLL(2)
    for (int v = 0; v < vectors; ++v) sum[i][v] = hn::Zero(d);
  }
  const float* soon = tile.soon;
  for (int run = 0; run < 2; ++run) {
    const float* a = tile.a[run];
    const float* b = tile.b[run];
    const int64_t a_pitch = tile.a_pitch[run], b_pitch = tile.b_pitch[run];
    for (int64_t k = tile.k[run]; k > 0; --k) {
      V across[vectors];
      HWY_UNROLL(2)
      for (int v = 0; v < vectors; ++v) across[v] = hn::LoadU(d, b + v * kLanes);
      HWY_UNROLL(14)
      for (int i = 0; i < rows; ++i) {
        const V down = hn::Set(d, a[i]);
        HWY_UNROLL(2)
        for (int v = 0; v < vectors; ++v) sum[i][v] = hn::MulAdd(down, across[v], sum[i][v]);
      }
      __builtin_prefetch(soon);
      __builtin_prefetch(soon + 16);
      soon += tile.soon_step;
      a += a_pitch;
      b += b_pitch;
    }
  }
  HWY_UNROLL(14)
  for (int i = 0; i < rows; ++i) {
    HWY_UNROLL(2)
    for (int v = 0; v < vectors; ++v) {
      V out = sum[i][v];
      if (tile.bias != nullptr) out = hn::Add(out, hn::LoadU(d, tile.bias + v * kLanes));
      if (tile.from != nullptr) out = hn::Add(out, hn::LoadU(d, tile.from + i * tile.from_pitch + v * kLanes));
      hn::StoreU(out, d, tile.c + i * tile.c_pitch + v * kLanes);
    }
  }
}

#define ROW(rows) {run_tile<rows, 1>, run_tile<rows, 2>}
constexpr TileKernel kTiles[kTileRows][kTileVectors] = {
    ROW(1), ROW(2), ROW(3), ROW(4), ROW(5), ROW(6),
#if HWY_TARGET <= HWY_AVX3 || HWY_ARCH_ARM_A64
    ROW(7), ROW(8), ROW(9), ROW(10), ROW(11), ROW(12),
#endif
#if HWY_TARGET <= HWY_AVX3
    ROW(13), ROW(14),
#endif
};
#undef ROW

}  // namespace

TileKernel tile_kernel(int64_t rows, int64_t vectors) { return kTiles[rows - 1][vectors - 1]; }

}  // namespace lowrank::cpu::LOWRANK_ISA
