// Products with a matrix as narrow as an adapter's ranks. They are bound by reading z [T, C] (x or dy), so one kernel does both that can be
// done with it at once:
//   by rows     sums[t, r] = sum_c z[t, c] side[r, c]    u of x and A, v of dy and B
//   by columns  sums[c, r] = sum_t z[t, c] tall[t, r]    dA of x and v, dB of dy and u
// side and tall come in two halves, high and low, so that the sums are as good as with factors in f32.
#pragma once
#include <vector>

#include "../philox.cuh"
#include "../queue.h"
#include "spread.h"

namespace lowrank::cuda {

// Columns of z that have to do with some ranks, and these: `ranks` places of the padded ranks from `rank0` on, at most 64.
struct Window {
  int64_t column0 = 0, columns = 0;
  int32_t rank0 = 0, ranks = 0;
  int32_t block0 = 0, blocks = 0;  // of the launch: filled in by it
  Dropout mask;                    // of z: element (t, c) is number t * mask_pitch + c
};

struct Skinny {
  DType dtype = DType::bf16;
  const void* z = nullptr;  // [rows, *], aligned to 16 bytes like its rows
  int64_t rows = 0, z_pitch = 0, mask_pitch = 0;
  const void* side = nullptr;  // [2 * padded, side_pitch], the low halves below the high ones; or not given
  int64_t side_pitch = 0;
  const void* tall = nullptr;  // [rows, 2 * padded], low beside high; or not given
  PartList parts;
  std::vector<Window> windows;
};

constexpr int kMostRowSpreads = 2;

struct SkinnyRows {
  float* out = nullptr;  // [rows, ranks], written
  float scale[kMaxParts] = {};
  // Where else they go, in 16 bits: slots of a value side by side, value i being row i of `out`.
  Spread spread[kMostRowSpreads];
  int32_t spreads = 0;

  void also(const Spread& one) {
    if (one.to != nullptr) spread[spreads++] = one;
  }
};
struct SkinnyColumns {
  float* out = nullptr;  // added to: [ranks, rank_pitch], or the flat B
  int64_t rank_pitch = 0;
  bool flat_b = false;
  float scale = 1.0f;
};

// Each part's ranks over the part's own columns of z (dy).
std::vector<Window> windows_by_part(const PartList& parts);
// All ranks over all columns of z (x): together, but where each part has a mask of its own.
std::vector<Window> windows_over(Queue& queue, const PartList& parts, int64_t columns, const LoraParts& adapter);

// Both results at once come without masks. Sums over z are cut by its shape alone, and the pieces are added in order: the same bits on every device. Either result may be missing.
void skinny(Queue& queue, const Skinny& product, const SkinnyRows* rows, const SkinnyColumns* columns);

}  // namespace lowrank::cuda
