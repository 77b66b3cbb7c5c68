// Host memory that a device can't read, on its way there: through a ring of pinned memory, so that one piece is filled while the last is
// being copied. For one thread and its lane.
#pragma once
#include "backend.h"
#include "copy_crew.h"

namespace lowrank {

class Staging {
 public:
  Staging(const Backend* backend, void* device, Lane lane) : backend_(backend), device_(device), lane_(lane) {}
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;
  void clear();  // gives its memory back; nobody reads it any more

  Lane lane() const { return lane_; }
  // Queues a copy from host memory (from_pitch may be anything), which has been read when this returns.
  void copy(const RowsCopy& rows, Failure& failure);

 private:
  static constexpr int kPieces = 8;
  struct Piece {
    char* memory = nullptr;
    void* mark = nullptr;
    bool pinned = false, queued = false;
  };
  bool ready(Piece& piece, Failure& failure);
  void copy_piece(RowsCopy rows, Failure& failure);

  const Backend* backend_;
  void* device_;
  Lane lane_;
  Piece pieces_[kPieces];
  CopyCrew crew_;
  int next_ = 0;
};

}  // namespace lowrank
