// The device side of bringing frozen weights: copies of rows, and marks between what a device does side by side (Lane of backend.h).
#pragma once
#include "../native/core/backend.h"
#include "gpu.cuh"
#include "own_memory.h"

namespace lowrank::cuda {

// One lane: a stream, and room for numbers that are converted behind their copy.
class Copies {
 public:
  explicit Copies(OwnMemory& memory) : memory_(memory) {}
  Copies(const Copies&) = delete;
  Copies& operator=(const Copies&) = delete;

  // Both with the device in force. `stream` is somebody else's; nullptr: makes one of its own.
  bool open(cudaStream_t stream, Failure* failure);
  void close();
  cudaStream_t stream() const { return stream_; }
  void copy(const RowsCopy& rows, Failure* failure);
  void clear(void* memory, int64_t pitch, int64_t bytes, int64_t rows, Failure* failure);

 private:
  const void* landed(const RowsCopy& rows, Failure* failure);

  OwnMemory& memory_;
  cudaStream_t stream_ = nullptr;
  bool own_ = false;
  void* room_ = nullptr;
  int64_t room_bytes_ = 0;
};

}  // namespace lowrank::cuda
