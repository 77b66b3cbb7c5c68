// What a skinny product does with one tile of z, 64 columns wide, in shared memory, with the pieces of the factors beside it.
#pragma once
#include "../gemm/pieces.cuh"
#include "../half.cuh"
#include "skinny.h"

namespace lowrank::cuda {

constexpr int kTileColumns = 64, kSkinnyThreads = 256, kPieces = kTileColumns / kPiece;
constexpr int kMostShared = 101376;  // of a block on sm_86, sm_89 and sm_120

// Both, as `Skinny` has them.
struct Factors {
  const void* side;
  const void* tall;
  int64_t side_pitch;
  int32_t padded;
};

inline Factors factors_of(const Skinny& product) { return {product.side, product.tall, product.side_pitch, static_cast<int32_t>(product.parts.padded())}; }

// Bytes of a tile of z, of the side's high and low halves beside it, and of the tall's.
constexpr int tile_bytes(int rows) { return rows * kTileColumns * 2; }
constexpr int side_bytes(int ranks) { return 2 * ranks * kTileColumns * 2; }
constexpr int tall_bytes(int rows, int ranks) { return rows * 2 * ranks * 2; }

// Where piece_of finds a piece, in bytes from the tile's beginning.
template <int kPieces>
GPU_FN int offset_of(int row, int at) {
  const int exchange = kPieces == 4 ? row >> 1 & 3 : row & 7;
  return (row * kPieces + (at ^ exchange)) * 16;
}

// How much of `left` there is up to `most`: a number of 32 bits to go on with.
GPU_FN int at_most(int64_t left, int most) { return left < most ? static_cast<int>(left) : most; }
// Bytes of a piece that begins at number `first` of `count`.
GPU_FN int bytes_of_piece(int first, int count) {
  const int left = count - first;
  return 2 * (left > kPiece ? kPiece : left > 0 ? left : 0);
}

// Rows from row0 on, before `rows`, and columns from column0 on, before column_end. A thread brings pieces (row, at) of for_own_pieces.
template <class H, int kTileRows>
GPU_FN void bring_tile(unsigned char* tile, const H* z, int64_t pitch, int64_t row0, int64_t rows, int64_t column0, int64_t column_end) {
  constexpr int kApart = kSkinnyThreads / kPieces;  // rows
  const int first = threadIdx.x / kPieces, at = threadIdx.x % kPieces;
  const int bytes = bytes_of_piece(at * kPiece, at_most(column_end - column0, kTileColumns)), high = at_most(rows - row0, kTileRows);
  const H* from = z + (row0 + first) * pitch + column0 + at * kPiece;
  unsigned char* to = tile + offset_of<kPieces>(first, at);
  GPU_UNROLL
  for (int i = 0; i < kTileRows / kApart; ++i, from += kApart * pitch) ptx::cp_async16(to + i * kApart * kPieces * 16, from, first + i * kApart < high ? bytes : 0);
}

// body(row, at) for the pieces of a tile that this thread has brought.
template <int kTileRows, class Body>
GPU_FN void for_own_pieces(const Body& body) {
  GPU_NO_UNROLL
  for (int i = threadIdx.x; i < kTileRows * kPieces; i += kSkinnyThreads) body(i / kPieces, i % kPieces);
}

// The side's columns from column0 on, before column_end: [2 * kRanks][kTileColumns].
template <class H, int kRanks>
GPU_FN void bring_side(const Factors& p, unsigned char* to, const Window& window, int64_t column0, int64_t column_end) {
  constexpr int kApart = kSkinnyThreads / kPieces;  // rows
  const int first = threadIdx.x / kPieces, at = threadIdx.x % kPieces;
  const int bytes = bytes_of_piece(at * kPiece, at_most(column_end - column0, kTileColumns));
  const H* side = static_cast<const H*>(p.side) + column0 + at * kPiece;
  to += offset_of<kPieces>(first, at);
  GPU_UNROLL
  for (int i = 0; i < 2 * kRanks / kApart; ++i) {
    const int row = first + i * kApart, rank = row % kRanks, low = row / kRanks;
    ptx::cp_async16(to + i * kApart * kPieces * 16, side + static_cast<int64_t>(low * p.padded + window.rank0 + rank) * p.side_pitch, rank < window.ranks ? bytes : 0);
  }
}

// The tall's rows from row0 on, before `rows`: [kTileRows][2 * kRanks].
template <class H, int kRanks, int kTileRows>
GPU_FN void bring_tall(const Factors& p, unsigned char* to, const Window& window, int64_t row0, int64_t rows) {
  constexpr int kOwn = 2 * kRanks / kPiece, kApart = kSkinnyThreads / kOwn;  // pieces of a row, and rows
  const int first = threadIdx.x / kOwn, at = threadIdx.x % kOwn, rank = at % (kOwn / 2) * kPiece, low = at / (kOwn / 2);
  const int bytes = rank < window.ranks ? 2 * kPiece : 0, high = at_most(rows - row0, kTileRows);
  const H* from = static_cast<const H*>(p.tall) + (row0 + first) * 2 * p.padded + low * p.padded + window.rank0 + rank;
  GPU_UNROLL
  for (int i = 0; i < kTileRows / kApart; ++i, from += kApart * 2 * p.padded) {
    const int row = first + i * kApart;
    ptx::cp_async16(to + offset_of<kOwn>(row, at), from, row < high ? bytes : 0);
  }
}

// A warp's: kHigh times 16 rows of the tile from row0 on by its ranks: each kGroups-th sixteen of them from its own group on, as far as
// there are `ranks`.
template <class H, int kRanks, int kHigh = 1, int kGroups = 1>
GPU_FN void add_by_rows(ptx::SharedAt tile, ptx::SharedAt side, int row0, int group, int ranks, float (&sums)[kHigh][kRanks / kGroups / 8][4]) {
  const int lane = static_cast<int>(lane_id()), side_row = lane % 8 + lane / 16 * 8;
  GPU_UNROLL
  for (int deep = 0; deep < kTileColumns / 16; ++deep) {
    const ptx::SharedAt own_tile = tile + offset_of<kPieces>(row0 + lane % 16, deep * 2 + lane / 16);
    const ptx::SharedAt own_side = side + offset_of<kPieces>(group * 16 + side_row, deep * 2 + lane / 8 % 2);
    uint32_t a[kHigh][4];
    GPU_UNROLL
    for (int m = 0; m < kHigh; ++m) ptx::ldmatrix_x4(a[m], own_tile + m * 16 * kPieces * 16);
    GPU_UNROLL
    for (int n = 0; n < kRanks / kGroups / 16; ++n) {
      const int own = n * kGroups + group;
      if (n > 0 && own * 16 >= ranks) break;
      GPU_UNROLL
      for (int low = 0; low < 2; ++low) {
        uint32_t b[4];
        ptx::ldmatrix_x4(b, own_side + (low * kRanks + n * kGroups * 16) * kPieces * 16);
        GPU_UNROLL
        for (int m = 0; m < kHigh; ++m) {
          ptx::mma_m16n8k16<H>(sums[m][2 * n], a[m], b[0], b[1]);
          ptx::mma_m16n8k16<H>(sums[m][2 * n + 1], a[m], b[2], b[3]);
        }
      }
    }
  }
}

// A warp's: kWide times 16 columns of the tile from column0 on by its ranks: each kGroups-th eight of them, likewise.
template <class H, int kRanks, int kTileRows, int kWide, int kGroups>
GPU_FN void add_by_columns(ptx::SharedAt tile, ptx::SharedAt tall, int column0, int group, int ranks, float (&sums)[kWide][kRanks / kGroups / 8][4]) {
  constexpr int kAcross = 2 * kRanks / kPiece;
  const int lane = static_cast<int>(lane_id());
  ptx::SharedAt own_tile[kWide], own_tall[kRanks / kGroups / 8];
  GPU_UNROLL
  for (int m = 0; m < kWide; ++m) own_tile[m] = tile + offset_of<kPieces>(lane % 8 + lane / 16 * 8, column0 / kPiece + 2 * m + lane / 8 % 2);
  GPU_UNROLL
  for (int n = 0; n < kRanks / kGroups / 8; ++n) own_tall[n] = tall + offset_of<kAcross>(lane % 16, n * kGroups + group + lane / 16 * (kAcross / 2));
  GPU_UNROLL
  for (int deep = 0; deep < kTileRows / 16; ++deep) {
    uint32_t a[kWide][4];  // of z transposed: 16 columns by 16 rows
    GPU_UNROLL
    for (int m = 0; m < kWide; ++m) ptx::ldmatrix_x4_trans(a[m], own_tile[m] + deep * 16 * kPieces * 16);
    GPU_UNROLL
    for (int n = 0; n < kRanks / kGroups / 8; ++n) {
      const int own = n * kGroups + group;
      if (n > 0 && own * 8 >= ranks) break;
      uint32_t b[4];  // high, then low
      ptx::ldmatrix_x4_trans(b, own_tall[n] + deep * 16 * kAcross * 16);
      GPU_UNROLL
      for (int m = 0; m < kWide; ++m) ptx::mma_m16n8k16<H>(sums[m][n], a[m], b[0], b[1]);
      GPU_UNROLL
      for (int m = 0; m < kWide; ++m) ptx::mma_m16n8k16<H>(sums[m][n], a[m], b[2], b[3]);
    }
  }
}

// One 16 x 8 tile of sums; of its rows `first` and `first + 8`, those before `end`.
template <int kRanks>
GPU_FN void give_sums(float* to, const float (&sums)[4], int64_t first, int64_t end) {
  GPU_UNROLL
  for (int high = 0; high < 2; ++high) {
    const int64_t row = first + high * 8;
    if (row < end) *reinterpret_cast<float2*>(to + row * kRanks) = make_float2(sums[2 * high], sums[2 * high + 1]);
  }
}

// The same, where sums of a rank lie side by side and ranks `pitch` apart.
GPU_FN void give_sums_across(float* to, const float (&sums)[4], int64_t pitch) {
  GPU_UNROLL
  for (int i = 0; i < 4; ++i) to[i % 2 * pitch + i / 2 * 8] = sums[i];
}

}  // namespace lowrank::cuda
