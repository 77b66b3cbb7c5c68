// Tiles of 16-bit numbers in shared memory, in pieces of 16 bytes, and how they are brought there. The pieces of a row are exchanged so that
// the eight rows that ldmatrix reads at once meet every bank once.
#pragma once
#include "../ptx.cuh"

namespace lowrank::cuda {

constexpr int kPiece = 8;  // numbers

// Where piece `at` of row `row` lies, in bytes from the beginning of a tile whose rows have kPieces (4, 8, 16, ...) pieces.
template <int kPieces>
GPU_FN int offset_of(int row, int at) {
  static_assert(kPieces == 4 || kPieces % 8 == 0, "rows of 64 bytes, or of whole 128");
  const int exchange = kPieces == 4 ? row >> 1 & 3 : row & 7;
  return (row * kPieces + (at ^ exchange)) * 16;
}

template <int kPieces>
GPU_FN unsigned char* piece_of(unsigned char* tile, int row, int at) {
  return tile + offset_of<kPieces>(row, at);
}

// How many of the eight numbers from `first` on are before `end`.
GPU_FN int given_of(int64_t first, int64_t end) {
  const int64_t left = end - first;
  return left >= kPiece ? kPiece : left > 0 ? static_cast<int>(left) : 0;
}

// `given` (0 to 8) numbers from an aligned address, which alone are read, and zeros behind them.
template <class H>
GPU_FN void bring_piece(unsigned char* to, const H* from, int given) {
  ptx::cp_async16(to, from, 2 * given);
}

// What pieces can be brought from.
inline bool is_aligned(const void* data, int64_t pitch) { return reinterpret_cast<uintptr_t>(data) % 16 == 0 && pitch % kPiece == 0; }

}  // namespace lowrank::cuda
