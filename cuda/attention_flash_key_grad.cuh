// What both ways to make dk and dv share. Scores are made as [keys, rows], so that p and ds are left factors as they are.
#pragma once
#include "attention_flash_grad.cuh"

namespace lowrank::cuda {

// Of two rows that lie one behind the other.
struct alignas(16) TwoStats {
  RowStats rows[2];
};

// body(t, n, rows) for each fragment of a matrix [keys, rows]: rows are those of its two columns, whose numbers lie in shared memory.
template <int kTiles, int kColumns, class Body>
GPU_FN void for_fragments(const RowStats* stats, const Body& body) {
  GPU_UNROLL
  for (int n = 0; n < kColumns; ++n) {
    const int column = n * 8 + static_cast<int>(lane_id()) % 4 * 2;
    const TwoStats two = *reinterpret_cast<const TwoStats*>(stats + column);
    GPU_UNROLL
    for (int t = 0; t < kTiles; ++t) body(t, n, two.rows);
  }
}

// Rows of q and dy from `row` on, a multiple of kRows, and their numbers; not awaited.
template <int kRows, int kD, class T>
GPU_FN void fetch_queries(const AttendGrad<T>& p, const GradRows<T, kD>& rows, const Place* place, int32_t row, const RowTile<kD>& tile, RowStats* stats) {
  const int i = static_cast<int>(threadIdx.x) * 2;
  if (i < kRows) ptx::cp_async16(stats + i, p.stats_of(place->g) + row + i, true);
  __syncwarp();  // ldmatrix and mma want the warp together
  fetch_rows<kRows, kGradThreads>(tile, rows.of(place->g), row, p.view.rows(), p.view.size);
  ptx::cp_async_commit();
}

// The warp's keys into dk or dv (`to`), from `own` on, by way of a tile.
template <class T, int kTiles, int kColumns, int kD>
GPU_FN void store_keys(const AttendGrad<T>& p, const Place* place, T* to, float scale, const RowTile<kD>& tile, int32_t own, const float (&totals)[kTiles][kColumns][4]) {
  float factors[kTiles][2];
  fill(factors, scale);
  to += static_cast<int64_t>(place->g) * p.view.size;
  store_rows<T>(tile, own, totals, factors, p.view.size, [&](int i) {
    const int32_t j = place->first + i;
    return j < p.view.sequences.tokens ? to + j * p.dqkv_pitch : nullptr;
  });
}

}  // namespace lowrank::cuda
