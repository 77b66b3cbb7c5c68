// Phase 1: rows of A into panels, and the skinny products of each panel while it is in the cache.
#include "job.h"

namespace lowrank::cpu::LOWRANK_ISA {

namespace {

// `temp` * scale to the side's output and to its columns of the panel. Number (i, j) is at temp[i * down + j * across].
void store_side(const Job& job, const Side& side, const float* temp, int64_t down, int64_t across, const PanelRows& rows, int64_t col, int64_t cols, float* panel) {
  for (int64_t i = 0; i < rows.count; ++i)
    for (int64_t j = 0; j < cols; ++j) {
      const float value = side.scale * temp[i * down + j * across];
      side.out[(rows.first + i) * side.pitch + col + j] = value;
      if (side.into >= 0) panel[(job.offset[side.into] + side.first + col + j) * rows.count + i] = value;
    }
}

// One tile of a side. `a`: the panel, whose row k stands at a + k * rows. A narrow side is taken as its transpose, in which the rows
// of A are the vector: n products for each k instead of one for each row. Where these are more vectors than a tile has (NEON: 12 rows), it isn't.
void run_side_tile(const Job& job, const Side& side, const Block& block, int64_t j, int64_t k, const PanelRows& rows, const float* a, float* panel) {
  HWY_ALIGN float temp[kTileRows * kTempCols];
  const int64_t col = j * kTileCols, cols = side.n - col < kTileCols ? side.n - col : kTileCols, width = block.vectors(j) * kLanes;
  const int64_t across = (rows.count + kLanes - 1) / kLanes;
  Tile tile{};
  tile.k[0] = k, tile.c = temp, tile.c_pitch = kTempCols, tile.soon = a;
  if (cols <= kTileRows && across <= kTileVectors && cols * across < rows.count * block.vectors(j)) {
    tile.a[0] = block.at(j, 0), tile.a_pitch[0] = width;
    tile.b[0] = a, tile.b_pitch[0] = rows.count;
    tile_kernel(cols, across)(tile);
    return store_side(job, side, temp, 1, kTempCols, rows, col, cols, panel);
  }
  tile.a[0] = a, tile.a_pitch[0] = rows.count;
  tile.b[0] = block.at(j, 0), tile.b_pitch[0] = width;
  tile_kernel(rows.count, block.vectors(j))(tile);
  store_side(job, side, temp, kTempCols, 1, rows, col, cols, panel);
}

// `from`: the Left's rows as f32.
void run_side(const Job& job, int s, const PanelRows& rows, const float* from, float* panel, float* dropped) {
  const Side& side = job.gemm->sides[s];
  const Left& left = job.gemm->lefts[side.from];
  const float* a = from;
  if (side.drop.on()) {
    pack_left(left, rows.first, rows.count, side.drop, dropped);
    a = dropped;
  }
  for (int64_t j = 0; j < job.sides[s].count(); ++j) run_side_tile(job, side, job.sides[s], j, left.k, rows, a, panel);
}

}  // namespace

void pack_panel(const Job& job, const Turn& turn, int64_t p, int worker, const Buffers& buffers) {
  const Gemm& gemm = *job.gemm;
  PanelRows rows = panel_rows(turn.rows, turn.panels, p);
  rows.first += turn.row;
  float* panel = panel_at(job, p, worker);
  float* wide = buffers.wide;
  const float* f32[kMaxLefts] = {};
  // All are packed before a side writes into the panel: packing runs over the end of what it writes.
  for (int i = 0; i < gemm.left_count; ++i) {
    const Left& left = gemm.lefts[i];
    if (left.data == nullptr) continue;
    float* own = panel + job.offset[i] * rows.count;
    const Words words = left_words(gemm, job.plan, i);
    if (words == Words::f32) {
      pack_left(left, rows.first, rows.count, Dropout(), own);
      f32[i] = own;
      continue;
    }
    if (words == Words::bf16_tiles) pair_tiles(left, rows.first, rows.count, own);
    if (!made_wide(gemm, job.plan, i)) continue;
    pack_left(left, rows.first, rows.count, Dropout(), wide);
    if (words == Words::bf16_pairs) pair_panel(wide, rows.count, left.k, own);
    f32[i] = wide, wide += left.k * rows.count;
  }
  for (int s = 0; s < gemm.side_count; ++s) run_side(job, s, rows, f32[gemm.sides[s].from], panel, buffers.panel);
}

}  // namespace lowrank::cpu::LOWRANK_ISA
