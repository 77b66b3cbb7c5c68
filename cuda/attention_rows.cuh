// Tiles of 16-bit rows in shared memory: how they lie there, and how they are fetched.
#pragma once
#include <type_traits>

#include "attention_view.cuh"
#include "ptx.cuh"

namespace lowrank::cuda {

// Rows of kD numbers (kD a multiple of 16) in pieces of 16 bytes. Pieces are permuted by row, so that the eight rows that ldmatrix reads
// at once lie in the eight different 16-byte parts of the banks, whatever kD.
template <int kD>
struct RowTile {
  static constexpr int kPieces = kD / 8;
  static constexpr int kSpread = kPieces % 8 == 0 ? 8 : kPieces % 4 == 0 ? 4 : 2;
  unsigned char* base;

  // What a lane of ldmatrix reads, counted from its own row and piece in steps of 8 rows and 2 pieces: a register for each step that flips bits.
  struct Lane {
    ptx::SharedAt from[kSpread / 2];
    GPU_FN ptx::SharedAt at(int rows, int pieces) const { return from[pieces % kSpread / 2] + (rows * kPieces + pieces / kSpread * kSpread) * 16; }
  };
  // The same in one register: bits are flipped where it is read, which tiles allow that are aligned to kSpread pieces. For dk and dv, whose
  // kernel has no more registers; dq's spilled with it at 128.
  struct TightLane {
    ptx::SharedAt from;
    GPU_FN ptx::SharedAt at(int rows, int pieces) const {
      return ptx::flipped(from, pieces % kSpread * 16) + (rows * kPieces + pieces / kSpread * kSpread) * 16;
    }
  };
  static GPU_FN int permuted(int row, int piece) { return (piece ^ (row / (8 / kSpread) % kSpread)) * 16; }
  GPU_FN unsigned char* at(int row, int piece) const { return base + row * kPieces * 16 + permuted(row, piece); }
  template <class L>
  GPU_FN L lane(int row, int piece) const {
    if constexpr (std::is_same_v<L, TightLane>) return {ptx::shared_at(at(row, piece))};
    else {
      Lane lane;
      GPU_UNROLL
      for (int i = 0; i < kSpread / 2; ++i) lane.from[i] = ptx::shared_at(base + row * kPieces * 16 + (permuted(row, piece) ^ (i * 32)));
      return lane;
    }
  }
  // Of a left factor, the tile's rows from `row` on.
  template <class L = Lane>
  GPU_FN L as_left(int row) const {
    return lane<L>(row + static_cast<int>(lane_id() % 16), static_cast<int>(lane_id() / 16));
  }
  // Of a right factor whose columns, or whose rows (read transposed), are the tile's rows.
  template <class L = Lane>
  GPU_FN L as_columns() const {
    return lane<L>(static_cast<int>(lane_id() % 8 + lane_id() / 16 * 8), static_cast<int>(lane_id() / 8 % 2));
  }
  template <class L = Lane>
  GPU_FN L as_rows() const {
    return as_left<L>(0);
  }
};

template <int kD, int kRows>
constexpr int kTileBytes = kRows * kD * 2;

// From row to row that a thread fetches: pieces are permuted alike every eighth row, so a multiple of 8 where there are threads enough.
template <int kThreads, int kD>
constexpr int kFetchStep = kThreads * 8 / kD < 8 ? kThreads * 8 / kD : kThreads * 8 / kD / 8 * 8;

// Rows one behind the other, `pitch` elements apart, of kParts tensors that lie alike.
template <class T, int kParts_ = 1>
struct EvenRows {
  static constexpr int kParts = kParts_;
  const T* base[kParts];
  int64_t pitch;

  // A row, and from there on each that lies kStep rows behind.
  struct Walk {
    const T* at[kParts];
    int64_t step;
    GPU_FN void next() {
      GPU_UNROLL
      for (int i = 0; i < kParts; ++i) at[i] += step;
    }
  };
  template <int kStep>
  GPU_FN Walk walk(int32_t row) const {
    Walk walk{{}, kStep * pitch};
    GPU_UNROLL
    for (int i = 0; i < kParts; ++i) walk.at[i] = base[i] + row * pitch;
    return walk;
  }
};

// Where the first token and head lie, and from token to token.
template <class T>
struct Pitched {
  const T* base;
  int64_t pitch;
};

// Rows of a kv head's queries, or of what lies as they do: from one to the next head of the group, then on to the next token. An argument of
// the kernel: what a step means is made at the launch, and no register holds it.
template <class T, int kStep, int kParts_ = 1>
struct GroupedRows {
  static constexpr int kParts = kParts_;
  Pitched<T> part[kParts];
  int32_t size, group;
  Divisor by_group;
  int32_t heads;                       // of a step, beside whole tokens
  int64_t step[kParts], wrap[kParts];  // elements; what is added where the group ends

  template <class... Parts>
  GroupedRows(const AttentionView<T>& view, const Parts&... parts)
      : part{parts...}, size(view.size), group(view.group), by_group(view.by_group), heads(kStep % view.group) {
    static_assert(sizeof...(Parts) == kParts);
    for (int i = 0; i < kParts; ++i) {
      step[i] = kStep / view.group * part[i].pitch + kStep % view.group * view.size;
      wrap[i] = part[i].pitch - static_cast<int64_t>(view.group) * view.size;
    }
  }

  struct Walk {
    const GroupedRows& rows;
    const T* at[kParts];
    int32_t head;
    GPU_FN void next() {
      head += rows.heads;
      const bool wraps = head >= rows.group;
      if (wraps) head -= rows.group;
      GPU_UNROLL
      for (int i = 0; i < kParts; ++i) at[i] += rows.step[i] + (wraps ? rows.wrap[i] : 0);
    }
  };
  struct OfHead {
    static constexpr int kParts = kParts_;
    const GroupedRows& rows;
    int32_t g;
    template <int kWalk>
    GPU_FN Walk walk(int32_t row) const {
      static_assert(kWalk == kStep);
      const int32_t token = rows.by_group.quotient(row), head = row - token * rows.group;
      Walk walk{rows, {}, head};
      GPU_UNROLL
      for (int i = 0; i < kParts; ++i) walk.at[i] = rows.part[i].base + token * rows.part[i].pitch + (static_cast<int64_t>(g) * rows.group + head) * rows.size;
      return walk;
    }
  };
  GPU_FN OfHead of(int32_t g) const { return {*this, g}; }
};

// Rows [row, row + kRows) into a tile, of each part behind those of the one before; those from `end` on are zeros, as are numbers behind
// `size`. Not awaited. Every thread takes as many rows as any other, kStep apart: their places in the tile differ by what is known here, so
// that an address is a number in the instruction.
template <int kRows, int kThreads, int kD, class Rows>
GPU_FN void fetch_rows(const RowTile<kD>& tile, const Rows& rows, int32_t row, int32_t end, int size) {
  constexpr int kPieces = RowTile<kD>::kPieces, kStep = kFetchStep<kThreads, kD>;
  constexpr int kPlaces = kStep < 8 ? 8 / kStep : 1;
  static_assert(kRows % kStep == 0 && kRows % 8 == 0 && kStep * kPieces % 32 == 0 && 8 % (8 / kPlaces) == 0);
  const int thread = ptx::made_here(static_cast<int>(threadIdx.x)), piece = thread % kPieces, own = thread / kPieces;
  if (own >= kStep) return;  // whole warps
  const int32_t count = piece * 8 < size ? end - row - own : 0;
  auto walk = rows.template walk<kStep>(row + own);
  ptx::SharedAt to[kPlaces];
  GPU_UNROLL
  for (int i = 0; i < kPlaces; ++i) to[i] = ptx::shared_at(tile.at(own + i * kStep, piece));
  GPU_UNROLL
  for (int i = 0; i < kRows / kStep; ++i, walk.next()) {
    GPU_UNROLL
    for (int part = 0; part < Rows::kParts; ++part) {
      const ptx::SharedAt at = to[i % kPlaces] + i / kPlaces * kPlaces * kStep * kPieces * 16 + part * kTileBytes<kD, kRows>;
      ptx::cp_async16(at, walk.at[part] + piece * 8, i * kStep < count);
    }
  }
}

}  // namespace lowrank::cuda
