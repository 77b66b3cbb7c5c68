// The body of the micro-kernel, for tile.cpp and pairs.cpp, which are compiled with different flags.
#pragma once
#include "tile.h"

namespace lowrank::cpu::LOWRANK_ISA {

namespace {

using TileTag = hn::ScalableTag<float>;
using TileVec = hn::Vec<TileTag>;

// sum + down * across, where both are f32.
struct MultiplyF32 {
  LOWRANK_INLINE TileVec operator()(TileVec down, TileVec across, TileVec sum) const { return hn::MulAdd(down, across, sum); }
};

template <int rows, int vectors>
using Sums = TileVec[rows][vectors];

// The products of one k into the sums.
template <int rows, int vectors, class Multiply>
LOWRANK_INLINE void add_k(const float* a, const float* b, Sums<rows, vectors>& sum, const Multiply& multiply) {
  const TileTag d;
  TileVec across[vectors];
  HWY_UNROLL(2)
  for (int v = 0; v < vectors; ++v) across[v] = hn::LoadU(d, b + v * kLanes);
  HWY_UNROLL(14)
  for (int i = 0; i < rows; ++i) {
    const TileVec down = hn::Set(d, a[i]);
    HWY_UNROLL(2)
    for (int v = 0; v < vectors; ++v) sum[i][v] = multiply(down, across[v], sum[i][v]);
  }
}

LOWRANK_INLINE void ask_soon(const float* soon) {
  HWY_UNROLL(2)
  for (int i = 0; i < kTileCols; i += 16) __builtin_prefetch(soon + i);
}

// Several k at a time of panels without gaps, whose steps are known: besides loads and products little is left, which a core that shares
// its front end with a busy neighbour feels most (10 to 14 % with AVX2 then, 0 to 4 % alone).
template <int rows, int vectors, class Multiply>
LOWRANK_INLINE const float* add_packed(const float* a, const float* b, int64_t k, const float* soon, int64_t step, Sums<rows, vectors>& sum,
                                       const Multiply& multiply) {
  constexpr int64_t width = vectors * kLanes;
  for (; k >= kUnroll; k -= kUnroll, a += kUnroll * rows, b += kUnroll * width, soon += kUnroll * step) {
    HWY_UNROLL(4)
    for (int i = 0; i < kUnroll; ++i) add_k<rows, vectors>(a + i * rows, b + i * width, sum, multiply);
    ask_soon(soon);
  }
  for (; k > 0; --k, a += rows, b += width) add_k<rows, vectors>(a, b, sum, multiply);
  return soon;
}

// One run of k into the sums. Returns what is to be prefetched next.
template <int rows, int vectors, class Multiply>
LOWRANK_INLINE const float* add_run(const Tile& tile, int run, const float* soon, Sums<rows, vectors>& sum, const Multiply& multiply) {
  const float* a = tile.a[run];
  const float* b = tile.b[run];
  const int64_t a_pitch = tile.a_pitch[run], b_pitch = tile.b_pitch[run];
  if (a_pitch == rows && b_pitch == vectors * kLanes) return add_packed<rows, vectors>(a, b, tile.k[run], soon, tile.soon_step, sum, multiply);
  for (int64_t k = tile.k[run]; k > 0; --k, a += a_pitch, b += b_pitch, soon += tile.soon_step) {
    add_k<rows, vectors>(a, b, sum, multiply);
    ask_soon(soon);
  }
  return soon;
}

// C is beyond L2 when the sums are ready, and nothing else is left to do while it comes.
template <int rows>
LOWRANK_INLINE void ask_for_c(const Tile& tile) {
  HWY_UNROLL(14)
  for (int i = 0; i < rows; ++i) {
    ask_soon(tile.c + i * tile.c_pitch);
    if (tile.from != nullptr && tile.from != tile.c) ask_soon(tile.from + i * tile.c_pitch);
  }
}

template <int rows, int vectors>
LOWRANK_INLINE void scale(const Tile& tile, Sums<rows, vectors>& sum) {
  const TileTag d;
  HWY_UNROLL(14)
  for (int i = 0; i < rows; ++i) {
    HWY_UNROLL(2)
    for (int v = 0; v < vectors; ++v) sum[i][v] = hn::Mul(sum[i][v], hn::LoadU(d, tile.factors + i * tile.factors_pitch + v * kLanes));
  }
}

template <int rows, int vectors, class First>
void run_tile(const Tile& tile) {
  const TileTag d;
  Sums<rows, vectors> sum;
  HWY_UNROLL(14)
  for (int i = 0; i < rows; ++i) {
    HWY_UNROLL(2)
    for (int v = 0; v < vectors; ++v) sum[i][v] = hn::Zero(d);
  }
  ask_for_c<rows>(tile);
  const float* soon = add_run<rows, vectors>(tile, 1, tile.soon, sum, MultiplyF32());
  if (tile.factors != nullptr) scale<rows, vectors>(tile, sum);
  add_run<rows, vectors>(tile, 0, soon, sum, First());
  HWY_UNROLL(14)
  for (int i = 0; i < rows; ++i) {
    HWY_UNROLL(2)
    for (int v = 0; v < vectors; ++v) {
      TileVec out = sum[i][v];
      if (tile.bias != nullptr) out = hn::Add(out, hn::LoadU(d, tile.bias + v * kLanes));
      if (tile.from != nullptr) out = hn::Add(out, hn::LoadU(d, tile.from + i * tile.c_pitch + v * kLanes));
      hn::StoreU(out, d, tile.c + i * tile.c_pitch + v * kLanes);
    }
  }
}

#define ROW(rows) {run_tile<rows, 1, First>, run_tile<rows, 2, First>}
template <class First>
constexpr TileKernel kTiles[kTileRows][kTileVectors] = {LOWRANK_TILE_ROWS(ROW)};
#undef ROW

}  // namespace

}  // namespace lowrank::cpu::LOWRANK_ISA
