#include "staging.h"

#include <stdlib.h>
#include <string.h>

#include <algorithm>

namespace lowrank {

namespace {

// Large enough that the hands of a crew have a MiB each, several enough that a bus of 55 GB/s has 1 ms of work while one is late.
constexpr int64_t kPieceBytes = 8 << 20;

}  // namespace

void Staging::clear() {
  crew_.stop();
  Failure ignored{};
  for (Piece& piece : pieces_) {
    if (piece.queued) backend_->reach_mark(device_, piece.mark, &ignored);
    if (piece.mark != nullptr) backend_->delete_mark(device_, piece.mark);
    if (piece.pinned) backend_->deallocate_host(device_, piece.memory);
    else free(piece.memory);
    piece = {};
  }
}

// The piece exists, and nobody reads it any more.
bool Staging::ready(Piece& piece, Failure& failure) {
  if (piece.queued) backend_->reach_mark(device_, piece.mark, &failure);
  piece.queued = false;
  if (piece.memory == nullptr) {
    piece.memory = static_cast<char*>(backend_->allocate_host(device_, kPieceBytes));
    piece.pinned = piece.memory != nullptr;
    if (!piece.pinned) piece.memory = static_cast<char*>(malloc(kPieceBytes));
  }
  if (piece.mark == nullptr) piece.mark = backend_->new_mark(device_);
  const bool there = piece.memory != nullptr && piece.mark != nullptr;
  if (!there) failure.set("ERR_MEMORY", "no host memory for %lld bytes on their way to the device", static_cast<long long>(kPieceBytes));
  return there && !failure.happened();
}

void Staging::copy_piece(RowsCopy rows, Failure& failure) {
  Piece& piece = pieces_[next_++ % kPieces];
  if (!ready(piece, failure)) return;
  const int64_t size = size_of(rows.from_dtype), row = rows.cols * size;
  const auto* from = static_cast<const char*>(rows.from);
  if (rows.from_pitch == rows.cols) crew_.copy(piece.memory, from, rows.rows * row);
  else
    for (int64_t i = 0; i < rows.rows; ++i) memcpy(piece.memory + i * row, from + i * rows.from_pitch * size, static_cast<size_t>(row));
  rows.from = piece.memory, rows.from_pitch = rows.cols, rows.from_host = 1;
  backend_->copy_rows(device_, lane_, &rows, &failure);
  backend_->set_mark(device_, lane_, piece.mark, &failure);
  piece.queued = true;
}

void Staging::copy(const RowsCopy& rows, Failure& failure) {
  const int64_t from_size = size_of(rows.from_dtype), to_size = size_of(rows.to_dtype);
  const int64_t most_cols = std::min(std::max<int64_t>(rows.cols, 1), kPieceBytes / from_size), most_rows = kPieceBytes / from_size / most_cols;
  for (int64_t row = 0; row < rows.rows; row += most_rows) {
    for (int64_t col = 0; col < rows.cols && !failure.happened(); col += most_cols) {
      RowsCopy piece = rows;
      piece.rows = std::min(most_rows, rows.rows - row), piece.cols = std::min(most_cols, rows.cols - col);
      piece.from = static_cast<const char*>(rows.from) + (row * rows.from_pitch + col) * from_size;
      piece.to = static_cast<char*>(rows.to) + (row * rows.to_pitch + col) * to_size;
      copy_piece(piece, failure);
    }
  }
}

}  // namespace lowrank
