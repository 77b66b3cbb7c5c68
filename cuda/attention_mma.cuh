// Products of tiles by tensor cores, and what is made of their results: what the flash kernels are made of.
//
// A warp owns kTiles x 16 rows of its left factor. Fragments of mma.m16n8k16: lane l holds, of each 16 x 8 tile of results, the columns
// l % 4 * 2 and the next of rows l / 4 and l / 4 + 8. Two such tiles of results side by side, rounded to 16 bits, are the left factor of a
// further product (`as_left`): probabilities never go through shared memory.
#pragma once
#include "attention_rows.cuh"

namespace lowrank::cuda {

template <int kTiles, int kColumns>
using Fragments = float[kTiles][kColumns / 8][4];

// As the left factor of a product over kDeep.
template <int kTiles, int kDeep>
using LeftFragments = uint32_t[kTiles][kDeep / 16][4];

template <int kTiles, int kColumns>
GPU_FN void clear(float (&sums)[kTiles][kColumns][4]) {
  GPU_UNROLL
  for (int t = 0; t < kTiles; ++t) {
    GPU_UNROLL
    for (int n = 0; n < kColumns; ++n) {
      GPU_UNROLL
      for (int i = 0; i < 4; ++i) sums[t][n][i] = 0.0f;
    }
  }
}

// A tile's rows from `row` on as a left factor.
template <int kTiles, int kSteps, int kD>
GPU_FN void load_left(uint32_t (&left)[kTiles][kSteps][4], const RowTile<kD>& rows, int row) {
  const auto on_left = rows.as_left(row);
  GPU_UNROLL
  for (int t = 0; t < kTiles; ++t) {
    GPU_UNROLL
    for (int k = 0; k < kSteps; ++k) ptx::ldmatrix_x4(left[t][k], on_left.at(t * 16, k * 2));
  }
}

// sums += left (rows of b, from b_row)^T, of step k of their depth.
template <class T, int kTiles, int kColumns, class Lane>
GPU_FN void multiply_step(float (&sums)[kTiles][kColumns][4], const uint32_t (&left)[kTiles][4], const Lane& on_columns, int b_row, int k) {
  GPU_UNROLL
  for (int n = 0; n < kColumns; n += 2) {
    uint32_t right[4];
    ptx::ldmatrix_x4(right, on_columns.at(b_row + n * 8, k * 2));
    GPU_UNROLL
    for (int t = 0; t < kTiles; ++t) {
      ptx::mma_m16n8k16<T>(sums[t][n], left[t], right[0], right[1]);
      ptx::mma_m16n8k16<T>(sums[t][n + 1], left[t], right[2], right[3]);
    }
  }
}

// sums = (the warp's rows of a, from a_row) (all rows of b)^T.
template <class T, int kTiles, int kColumns, int kD>
GPU_FN void multiply_rows(float (&sums)[kTiles][kColumns][4], const RowTile<kD>& a, int a_row, const RowTile<kD>& b) {
  const auto on_left = a.as_left(a_row), on_columns = b.as_columns();
  clear(sums);
  GPU_UNROLL
  for (int k = 0; k < kD / 16; ++k) {
    uint32_t left[kTiles][4];
    GPU_UNROLL
    for (int t = 0; t < kTiles; ++t) ptx::ldmatrix_x4(left[t], on_left.at(t * 16, k * 2));
    multiply_step<T>(sums, left, on_columns, 0, k);
  }
}

// sums = left (rows of b, from b_row)^T.
template <class T, int kTiles, int kColumns, int kSteps, class Lane>
GPU_FN void multiply_left(float (&sums)[kTiles][kColumns][4], const uint32_t (&left)[kTiles][kSteps][4], const Lane& on_columns, int b_row) {
  clear(sums);
  GPU_UNROLL
  for (int k = 0; k < kSteps; ++k) {
    uint32_t step[kTiles][4];
    GPU_UNROLL
    for (int i = 0; i < kTiles * 4; ++i) step[i / 4][i % 4] = left[i / 4][k][i % 4];
    multiply_step<T>(sums, step, on_columns, b_row, k);
  }
}

// totals += weights (rows of a tile, from `row`).
template <class T, int kTiles, int kSteps, int kColumns, class Lane>
GPU_FN void add_weighted_rows(float (&totals)[kTiles][kColumns][4], const uint32_t (&weights)[kTiles][kSteps][4], const Lane& on_rows, int row) {
  GPU_UNROLL
  for (int k = 0; k < kSteps; ++k) {
    GPU_UNROLL
    for (int n = 0; n < kColumns; n += 2) {
      uint32_t right[4];
      ptx::ldmatrix_x4_trans(right, on_rows.at(row + k * 16, n));
      GPU_UNROLL
      for (int t = 0; t < kTiles; ++t) {
        ptx::mma_m16n8k16<T>(totals[t][n], weights[t][k], right[0], right[1]);
        ptx::mma_m16n8k16<T>(totals[t][n + 1], weights[t][k], right[2], right[3]);
      }
    }
  }
}
template <class T, int kTiles, int kSteps, int kColumns, int kD>
GPU_FN void add_weighted_rows(float (&totals)[kTiles][kColumns][4], const uint32_t (&weights)[kTiles][kSteps][4], const RowTile<kD>& rows) {
  add_weighted_rows<T>(totals, weights, rows.as_rows(), 0);
}

template <class T, int kTiles, int kSteps>
GPU_FN void as_left(uint32_t (&left)[kTiles][kSteps][4], const float (&sums)[kTiles][2 * kSteps][4]) {
  GPU_UNROLL
  for (int t = 0; t < kTiles; ++t) {
    GPU_UNROLL
    for (int k = 0; k < kSteps; ++k) {
      GPU_UNROLL
      for (int i = 0; i < 4; ++i) {
        const float(&from)[4] = sums[t][2 * k + i / 2];
        left[t][k][i] = ptx::pack_halves<T>(from[i % 2 * 2], from[i % 2 * 2 + 1]);
      }
    }
  }
}

// The warp's rows, times a factor each, by way of its own rows of a tile that no other warp reads: row(i) is where row i of the tile goes,
// nullptr for nowhere. 16 bytes a lane, whole lines of memory.
template <class T, int kTiles, int kColumns, int kD, class Row>
GPU_FN void store_rows(const RowTile<kD>& tile, int first, const float (&totals)[kTiles][kColumns][4], const float (&factors)[kTiles][2], int size, const Row& row) {
  const int lane = static_cast<int>(lane_id());
  __syncwarp();
  GPU_UNROLL
  for (int t = 0; t < kTiles; ++t) {
    GPU_UNROLL
    for (int n = 0; n < kColumns; ++n) {
      GPU_UNROLL
      for (int h = 0; h < 2; ++h) {
        const uint32_t pair = ptx::pack_halves<T>(totals[t][n][2 * h] * factors[t][h], totals[t][n][2 * h + 1] * factors[t][h]);
        *reinterpret_cast<uint32_t*>(tile.at(first + t * 16 + h * 8 + lane / 4, n) + lane % 4 * 4) = pair;
      }
    }
  }
  __syncwarp();
  constexpr int kPieces = RowTile<kD>::kPieces;
  for (int i = lane; i < kTiles * 16 * kPieces; i += 32) {
    const int r = first + i / kPieces, piece = i % kPieces;
    T* to = row(r);
    if (to != nullptr && piece * 8 < size) *reinterpret_cast<uint4*>(to + piece * 8) = *reinterpret_cast<const uint4*>(tile.at(r, piece));
  }
}

// What each row (or key) of a block's left factor sees, in shared memory: who needs it reads it once a tile. `of(i)` for the rows from `first`
// on; behind `last` are none that count, and they see what it does. To be read behind a barrier.
template <int kRows, int kThreads, class Of>
GPU_FN void find_sights(Sight* sights, int32_t first, int32_t last, const Of& of) {
  for (auto i = static_cast<int32_t>(threadIdx.x); i < kRows; i += kThreads) sights[i] = of(first + i < last ? first + i : last);
}

// Whether any, and whether all of a warp's kCount rows see any, or all, of others. Both ends of what is seen rise from row to row. Without &&:
// reading both ends costs less than a second one that waits for the first.
template <int kCount>
struct WarpSight {
  const Sight* rows;
  GPU_FN bool sees_any(int32_t at, int count) const { return (at < rows[kCount - 1].end) && (at + count > rows[0].begin); }
  GPU_FN bool sees_all(int32_t at, int count) const { return (at >= rows[kCount - 1].begin) && (at + count <= rows[0].end); }
};

// Scores of what isn't seen become -inf. Columns count from `first`.
template <int kTiles, int kColumns>
GPU_FN void mask(float (&scores)[kTiles][kColumns][4], const WarpSight<16 * kTiles>& warp, int32_t first) {
  GPU_UNROLL
  for (int t = 0; t < kTiles; ++t) {
    GPU_UNROLL
    for (int h = 0; h < 2; ++h) {
      const Sight sight = warp.rows[t * 16 + h * 8 + lane_id() / 4];
      GPU_UNROLL
      for (int n = 0; n < kColumns; ++n) {
        GPU_UNROLL
        for (int i = 2 * h; i < 2 * h + 2; ++i) {
          if (!sight.sees(first + n * 8 + static_cast<int32_t>(lane_id()) % 4 * 2 + i % 2)) scores[t][n][i] = -INFINITY;
        }
      }
    }
  }
  __syncwarp();  // ldmatrix and mma want the warp together
}

// Whether rows of these tensors can be read and written in pieces of 16 bytes.
template <class T>
bool in_pieces(const T* data, int64_t pitch) {
  return reinterpret_cast<uintptr_t>(data) % 16 == 0 && pitch % 8 == 0;
}
template <class T>
bool in_pieces(const AttentionView<T>& view) {
  return view.size % 8 == 0 && view.size <= 256 && in_pieces(view.q, view.q_pitch) && in_pieces(view.k, view.kv_pitch) && in_pieces(view.v, view.kv_pitch);
}

// body(Count<kD>{}): the size that kernels are compiled for, the next to a head's. 80 (Phi-2's) goes with 96: a size is a tenth of the plugin.
template <class Body>
void with_head_size(int32_t size, const Body& body) {
  if (size <= 32) return body(Count<32>{});
  if (size <= 64) return body(Count<64>{});
  if (size <= 96) return body(Count<96>{});
  if (size <= 128) return body(Count<128>{});
  body(Count<256>{});
}

// More than 48 KiB of shared memory must be asked for, once per kernel and device; asking again costs nothing worth remembering it for.
template <class Kernel>
void allow_shared(Kernel kernel, int bytes) {
  cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
}

}  // namespace lowrank::cuda
