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

// Numbers of 32 bits are enough to go on with inside a block.
GPU_FN int at_most(int64_t left, int most) { return left < most ? static_cast<int>(left) : most; }
constexpr int kEnough = 1 << 30;

// A thread's pieces of a tile: piece at() of rows first(), first() + kOwnApart, ... They are brought from where the first of them lies.
constexpr int kOwnApart = kSkinnyThreads / kPieces;
GPU_FN int own_first() { return threadIdx.x / kPieces; }
GPU_FN int own_at() { return threadIdx.x % kPieces; }
template <class H>
GPU_FN const H* own_piece(const H* rows, int64_t pitch, int64_t row, int64_t column) {
  return rows + row * pitch + column + own_at() * kPiece;
}
GPU_FN unsigned char* own_place(unsigned char* tile) { return tile + offset_of<kPieces>(own_first(), own_at()); }

// kCount of a thread's pieces: step(i) is how far the i-th lies from the first, given(i) whether it is there. Of the tile's columns `columns`
// are left, or more.
template <int kCount, class H, class Step, class Given>
GPU_FN void bring_own(unsigned char* to, const H* own, int columns, const Step& step, const Given& given) {
  if (columns >= kTileColumns) {  // takes fewer instructions
    GPU_UNROLL
    for (int i = 0; i < kCount; ++i) ptx::cp_async16(to + i * kOwnApart * kPieces * 16, own + step(i), given(i));
    return;
  }
  const int left = columns - own_at() * kPiece, bytes = left > 0 ? 2 * (left < kPiece ? left : kPiece) : 0;
  GPU_UNROLL
  for (int i = 0; i < kCount; ++i) ptx::cp_async16(to + i * kOwnApart * kPieces * 16, own + step(i), given(i) ? bytes : 0);
}

// Of the tile there are `rows` rows and `columns` columns, or more.
template <class H, int kTileRows>
GPU_FN void bring_tile(unsigned char* tile, const H* own, int64_t pitch, int rows, int columns) {
  bring_own<kTileRows / kOwnApart>(own_place(tile), own, columns, [&](int i) { return i * kOwnApart * pitch; }, [&](int i) { return own_first() + i * kOwnApart < rows; });
}

// body(row, place) for the pieces of a tile that this thread has brought: `place` is how far one lies from own_place.
template <int kTileRows, class Body>
GPU_FN void for_own_pieces(const Body& body) {
  GPU_NO_UNROLL
  for (int i = 0; i < kTileRows / kOwnApart; ++i) body(own_first() + i * kOwnApart, i * kOwnApart * kPieces * 16);
}

// 64 columns of the side: [2 * kRanks][kTileColumns]. A thread's rows of it are those of one rank, or of each kOwnApart-th.
template <class H, int kRanks>
GPU_FN const H* own_of_side(const Factors& p, const Window& window, int64_t column) {
  const int rank = own_first() % kRanks, low = own_first() / kRanks;
  return own_piece(static_cast<const H*>(p.side), p.side_pitch, static_cast<int64_t>(low * p.padded + window.rank0 + rank), column);
}
template <class H, int kRanks>
GPU_FN void bring_side(const Factors& p, unsigned char* side, const H* own, int ranks, int columns) {
  const auto step = [&](int i) { return static_cast<int64_t>(i * kOwnApart / kRanks * p.padded + i * kOwnApart % kRanks) * p.side_pitch; };
  bring_own<2 * kRanks / kOwnApart>(own_place(side), own, columns, step, [&](int i) { return own_first() % kRanks + i * kOwnApart % kRanks < ranks; });
}

// Rows of the tall: [kTileRows][2 * kRanks]. A thread has one piece of a row, high or low.
template <int kRanks>
struct TallPiece {
  static constexpr int kAcross = 2 * kRanks / kPiece, kApart = kSkinnyThreads / kAcross;  // pieces of a row, and rows between a thread's

  static GPU_FN int first() { return threadIdx.x / kAcross; }
  static GPU_FN int at() { return threadIdx.x % kAcross; }
  static GPU_FN int rank() { return at() % (kAcross / 2) * kPiece; }
  template <class H>
  static GPU_FN const H* own(const Factors& p, const Window& window, int64_t row) {
    return static_cast<const H*>(p.tall) + (row + first()) * 2 * p.padded + at() / (kAcross / 2) * p.padded + window.rank0 + rank();
  }
};
template <class H, int kRanks, int kTileRows>
GPU_FN void bring_tall(const Factors& p, unsigned char* tall, const H* own, int ranks, int rows) {
  using T = TallPiece<kRanks>;
  GPU_UNROLL
  for (int i = 0; i < kTileRows / T::kApart; ++i, own += T::kApart * 2 * p.padded) {
    const int row = T::first() + i * T::kApart;
    ptx::cp_async16(tall + offset_of<T::kAcross>(row, T::at()), own, row < rows && T::rank() < ranks);
  }
}

// Where a lane reads with ldmatrix: steps from the places of a tile and its factors in shared memory, found once.
struct RowLanes {
  ptx::SharedAt tile[kTileColumns / 16], side[kTileColumns / 16];
};
// `row0` and `group` are the warp's, as in add_by_rows.
GPU_FN RowLanes row_lanes(unsigned char* shared, int row0, int group) {
  const int lane = static_cast<int>(lane_id());
  RowLanes lanes;
  GPU_UNROLL
  for (int deep = 0; deep < kTileColumns / 16; ++deep) {
    lanes.tile[deep] = ptx::shared_at(shared + offset_of<kPieces>(row0 + lane % 16, deep * 2 + lane / 16));
    lanes.side[deep] = ptx::shared_at(shared + offset_of<kPieces>(group * 16 + lane % 8 + lane / 16 * 8, deep * 2 + lane / 8 % 2));
  }
  return lanes;
}

// A warp's: kHigh times 16 rows of the tile from row0 on by its ranks: each kGroups-th sixteen of them from its own group on, as far as
// there are `ranks`. `tile` and `side` are where these lie.
template <class H, int kRanks, int kHigh = 1, int kGroups = 1>
GPU_FN void add_by_rows(const RowLanes& lanes, int tile, int side, int group, int ranks, float (&sums)[kHigh][kRanks / kGroups / 8][4]) {
  GPU_UNROLL
  for (int deep = 0; deep < kTileColumns / 16; ++deep) {
    uint32_t a[kHigh][4];
    GPU_UNROLL
    for (int m = 0; m < kHigh; ++m) ptx::ldmatrix_x4(a[m], lanes.tile[deep] + tile + m * 16 * kPieces * 16);
    GPU_UNROLL
    for (int n = 0; n < kRanks / kGroups / 16; ++n) {
      if (n > 0 && (n * kGroups + group) * 16 >= ranks) break;
      GPU_UNROLL
      for (int low = 0; low < 2; ++low) {
        uint32_t b[4];
        ptx::ldmatrix_x4(b, lanes.side[deep] + side + (low * kRanks + n * kGroups * 16) * kPieces * 16);
        GPU_UNROLL
        for (int m = 0; m < kHigh; ++m) {
          ptx::mma_m16n8k16<H>(sums[m][2 * n], a[m], b[0], b[1]);
          ptx::mma_m16n8k16<H>(sums[m][2 * n + 1], a[m], b[2], b[3]);
        }
      }
    }
  }
}

template <int kRanks, int kWide, int kGroups>
struct ColumnLanes {
  ptx::SharedAt tile[kWide], tall[kRanks / kGroups / 8];
};
template <int kRanks, int kWide, int kGroups>
GPU_FN ColumnLanes<kRanks, kWide, kGroups> column_lanes(unsigned char* shared, int column0, int group) {
  constexpr int kAcross = TallPiece<kRanks>::kAcross;
  const int lane = static_cast<int>(lane_id());
  ColumnLanes<kRanks, kWide, kGroups> lanes;
  GPU_UNROLL
  for (int m = 0; m < kWide; ++m) lanes.tile[m] = ptx::shared_at(shared + offset_of<kPieces>(lane % 8 + lane / 16 * 8, column0 / kPiece + 2 * m + lane / 8 % 2));
  GPU_UNROLL
  for (int n = 0; n < kRanks / kGroups / 8; ++n) lanes.tall[n] = ptx::shared_at(shared + offset_of<kAcross>(lane % 16, n * kGroups + group + lane / 16 * (kAcross / 2)));
  return lanes;
}

// A warp's: kWide times 16 columns of the tile from column0 on by its ranks: each kGroups-th eight of them, likewise.
template <class H, int kRanks, int kTileRows, int kWide, int kGroups>
GPU_FN void add_by_columns(const ColumnLanes<kRanks, kWide, kGroups>& lanes, int tile, int tall, int group, int ranks, float (&sums)[kWide][kRanks / kGroups / 8][4]) {
  constexpr int kAcross = TallPiece<kRanks>::kAcross;
  GPU_UNROLL
  for (int deep = 0; deep < kTileRows / 16; ++deep) {
    uint32_t a[kWide][4];  // of z transposed: 16 columns by 16 rows
    GPU_UNROLL
    for (int m = 0; m < kWide; ++m) ptx::ldmatrix_x4_trans(a[m], lanes.tile[m] + tile + deep * 16 * kPieces * 16);
    GPU_UNROLL
    for (int n = 0; n < kRanks / kGroups / 8; ++n) {
      if (n > 0 && (n * kGroups + group) * 8 >= ranks) break;
      uint32_t b[4];  // high, then low
      ptx::ldmatrix_x4_trans(b, lanes.tall[n] + tall + deep * 16 * kAcross * 16);
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
