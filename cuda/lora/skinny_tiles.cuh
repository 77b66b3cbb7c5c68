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

// Rows from row0 on, before `rows`, and columns from column0 on, before column_end. A thread brings pieces (row, at) of for_own_pieces.
template <class H, int kTileRows>
GPU_FN void bring_tile(unsigned char* tile, const H* z, int64_t pitch, int64_t row0, int64_t rows, int64_t column0, int64_t column_end) {
  const int first = threadIdx.x / kPieces, at = threadIdx.x % kPieces;
  const int64_t column = column0 + at * kPiece;
  const int given = given_of(column, column_end);
  GPU_UNROLL
  for (int i = 0; i < kTileRows * kPieces / kSkinnyThreads; ++i) {
    const int row = first + i * (kSkinnyThreads / kPieces);
    const int own = row0 + row < rows ? given : 0;
    bring_piece(piece_of<kPieces>(tile, row, at), own > 0 ? z + (row0 + row) * pitch + column : z, own);
  }
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
  const auto* side = static_cast<const H*>(p.side);
  GPU_UNROLL
  for (int i = 0; i < 2 * kRanks * kPieces / kSkinnyThreads; ++i) {
    const int at = static_cast<int>(threadIdx.x) % kPieces, row = static_cast<int>(threadIdx.x) / kPieces + i * (kSkinnyThreads / kPieces);
    const int rank = row % kRanks, low = row / kRanks;
    const int64_t column = column0 + at * kPiece;
    const int given = rank < window.ranks ? given_of(column, column_end) : 0;
    const H* from = side + (static_cast<int64_t>(low) * p.padded + window.rank0 + rank) * p.side_pitch + column;
    bring_piece(piece_of<kPieces>(to, row, at), given > 0 ? from : side, given);
  }
}

// The tall's rows from row0 on, before `rows`: [kTileRows][2 * kRanks].
template <class H, int kRanks, int kTileRows>
GPU_FN void bring_tall(const Factors& p, unsigned char* to, const Window& window, int64_t row0, int64_t rows) {
  constexpr int kOwn = 2 * kRanks / kPiece;  // pieces of a row
  const auto* tall = static_cast<const H*>(p.tall);
  for (int i = threadIdx.x; i < kTileRows * kOwn; i += kSkinnyThreads) {
    const int row = i / kOwn, at = i % kOwn, rank = at % (kOwn / 2) * kPiece, low = at / (kOwn / 2);
    const bool given = row0 + row < rows && rank < window.ranks;
    const H* from = tall + (row0 + row) * 2 * p.padded + low * p.padded + window.rank0 + rank;
    bring_piece(piece_of<kOwn>(to, row, at), given ? from : tall, given ? kPiece : 0);
  }
}

// A warp's: kHigh times 16 rows of the tile from row0 on by its ranks: each kGroups-th sixteen of them from its own group on, as far as
// there are `ranks`.
template <class H, int kRanks, int kHigh = 1, int kGroups = 1>
GPU_FN void add_by_rows(unsigned char* tile, unsigned char* side, int row0, int group, int ranks, float (&sums)[kHigh][kRanks / kGroups / 8][4]) {
  const int lane = static_cast<int>(lane_id());
  GPU_UNROLL
  for (int deep = 0; deep < kTileColumns / 16; ++deep) {
    uint32_t a[kHigh][4];
    GPU_UNROLL
    for (int m = 0; m < kHigh; ++m) ptx::ldmatrix_x4(a[m], piece_of<kPieces>(tile, row0 + m * 16 + lane % 16, deep * 2 + lane / 16));
    GPU_UNROLL
    for (int n = 0; n < kRanks / kGroups / 16; ++n) {
      const int own = n * kGroups + group;
      if (n > 0 && own * 16 >= ranks) break;
      GPU_UNROLL
      for (int low = 0; low < 2; ++low) {
        uint32_t b[4];
        ptx::ldmatrix_x4(b, piece_of<kPieces>(side, low * kRanks + own * 16 + lane % 8 + lane / 16 * 8, deep * 2 + lane / 8 % 2));
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
GPU_FN void add_by_columns(unsigned char* tile, unsigned char* tall, int column0, int group, int ranks, float (&sums)[kWide][kRanks / kGroups / 8][4]) {
  constexpr int kAcross = 2 * kRanks / kPiece;
  const int lane = static_cast<int>(lane_id()), columns = column0 / kPiece;
  GPU_UNROLL
  for (int deep = 0; deep < kTileRows / 16; ++deep) {
    uint32_t a[kWide][4];  // of z transposed: 16 columns by 16 rows
    GPU_UNROLL
    for (int m = 0; m < kWide; ++m) ptx::ldmatrix_x4_trans(a[m], piece_of<kPieces>(tile, deep * 16 + lane % 8 + lane / 16 * 8, columns + 2 * m + lane / 8 % 2));
    GPU_UNROLL
    for (int n = 0; n < kRanks / kGroups / 8; ++n) {
      const int own = n * kGroups + group;
      if (n > 0 && own * 8 >= ranks) break;
      uint32_t b[4];  // high, then low
      ptx::ldmatrix_x4_trans(b, piece_of<kAcross>(tall, deep * 16 + lane % 16, own + lane / 16 * (kAcross / 2)));
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
