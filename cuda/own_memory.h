// Device memory that a queue takes for itself (scratch, a product's workspace, room to convert weights in), beside what the pool hands out.
#pragma once
#include <stdint.h>

#include <algorithm>
#include <mutex>
#include <unordered_map>

#include "gpu.cuh"

namespace lowrank::cuda {

// Any thread: the lane of copies has room of its own.
class OwnMemory {
 public:
  OwnMemory() = default;
  OwnMemory(const OwnMemory&) = delete;
  OwnMemory& operator=(const OwnMemory&) = delete;

  cudaError_t take(void** memory, int64_t bytes) {
    const cudaError_t error = cudaMalloc(memory, static_cast<size_t>(bytes));
    if (error != cudaSuccess) return error;
    const std::lock_guard lock(mutex_);
    sizes_[*memory] = bytes;
    held_ += bytes;
    most_ = std::max(most_, held_);
    return error;
  }
  void give_back(void* memory) {
    cudaFree(memory);
    const std::lock_guard lock(mutex_);
    const auto size = sizes_.find(memory);
    if (size == sizes_.end()) return;
    held_ -= size->second;
    sizes_.erase(size);
  }
  // Bytes that were held at once, at most so far.
  int64_t most() {
    const std::lock_guard lock(mutex_);
    return most_;
  }

 private:
  std::mutex mutex_;
  std::unordered_map<void*, int64_t> sizes_;
  int64_t held_ = 0, most_ = 0;
};

}  // namespace lowrank::cuda
