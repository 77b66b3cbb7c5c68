// The micro-kernel: a tile of C held in registers over a run of k.
#pragma once
#include "../kernel.h"

namespace lowrank::cpu::LOWRANK_ISA {

constexpr int kLanes = HWY_MAX_BYTES / static_cast<int>(sizeof(float));
constexpr int kTileVectors = 2;
// Registers: rows * 2 accumulators, 2 of B, 1 of A. 32 of them with AVX-512, 16 before. kUnroll: k of a packed panel that are taken together;
// the compiler spreads them over what registers are left (one with AVX-512), and without FMA each product needs one.
#if HWY_TARGET <= HWY_AVX3
constexpr int kTileRows = 14, kUnroll = 2;
#elif HWY_ARCH_ARM_A64
constexpr int kTileRows = 12, kUnroll = 4;
#else
constexpr int kTileRows = 6, kUnroll = HWY_NATIVE_FMA ? 4 : 1;
#endif
constexpr int kTileCols = kTileVectors * kLanes;

// ROW(1), ROW(2), ... ROW(kTileRows): the rows of a table of kernels.
#if HWY_TARGET <= HWY_AVX3
#define LOWRANK_TILE_ROWS(ROW) ROW(1), ROW(2), ROW(3), ROW(4), ROW(5), ROW(6), ROW(7), ROW(8), ROW(9), ROW(10), ROW(11), ROW(12), ROW(13), ROW(14)
#elif HWY_ARCH_ARM_A64
#define LOWRANK_TILE_ROWS(ROW) ROW(1), ROW(2), ROW(3), ROW(4), ROW(5), ROW(6), ROW(7), ROW(8), ROW(9), ROW(10), ROW(11), ROW(12)
#else
#define LOWRANK_TILE_ROWS(ROW) ROW(1), ROW(2), ROW(3), ROW(4), ROW(5), ROW(6)
#endif

// What the first run of a tile multiplies. bf16 pairs: the numbers of k and k + 1, the first in the lower half of a word of 32 bits;
// one word then stands where an f32 would, and the run is half as long. bf16 tiles: the same pairs for AMX (amx.h): panels of A are tile after
// tile, and the run ends with zeros where it would end inside of one.
enum class Words : int32_t { f32, bf16_pairs, bf16_tiles };
constexpr int64_t kAmxWords = 16;

// C[rows, cols] = A B + bias + from over two runs of k. The second is the low-rank one, always f32, or empty; its product may be multiplied
// by factors, a dropout's, before the first is added.
struct Tile {
  const float* a[2];       // word (k, i) of a run at a[k * a_pitch + i]
  int64_t a_pitch[2];
  int64_t k[2];            // words
  const float* b[2];       // [k, cols] of a run, rows b_pitch apart
  int64_t b_pitch[2];
  float* c;
  int64_t c_pitch;
  const float* from;       // what is added, of pitch c_pitch; nullptr: nothing. May be c.
  const float* bias;       // [cols] or nullptr
  const float* factors;    // [rows, cols] of the second run, of pitch factors_pitch; nullptr: none
  int64_t factors_pitch;
  const float* soon;       // what is wanted next: kTileCols floats of it are prefetched with every kUnroll-th k of packed panels and with
  int64_t soon_step;       // each k of others (a side taken as its transpose), `soon_step` floats on with each k
};

using TileKernel = void (*)(const Tile& tile);

// The kernel for `rows` (1..kTileRows) by `vectors` (1..kTileVectors) * kLanes columns.
TileKernel tile_kernel(int64_t rows, int64_t vectors, Words words = Words::f32);

// Whether this instruction set has one for bf16 pairs (pairs.cpp).
bool has_pairs();
TileKernel pairs_kernel(int64_t rows, int64_t vectors);

}  // namespace lowrank::cpu::LOWRANK_ISA
