#include "pool.h"

#include <algorithm>

namespace lowrank {

namespace {

constexpr int64_t kHostGranule = 64;     // a cache line, and the widest vector
constexpr int64_t kDeviceGranule = 256;  // as the device itself aligns: rows that begin on lines of 128 bytes do so in any block
constexpr int64_t kRegion = 32 << 20;
constexpr int64_t kHugePage = 2 << 20;

int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

}  // namespace

Pool::Pool(const Backend* backend, void* device)
    : backend_(backend), device_(device), granule_(backend->host_memory != 0 ? kHostGranule : kDeviceGranule) {}

void Pool::clear() {
  for (const auto& [memory, bytes] : regions_) backend_->deallocate(device_, memory, bytes);
  regions_.clear();
  ranges_.clear();
  free_.clear();
}

void Pool::adopt(void* memory, int64_t bytes) {
  may_grow_ = false;
  ranges_[static_cast<char*>(memory)] = {bytes, true, true};
  free_.insert({bytes, static_cast<char*>(memory)});
}

bool Pool::grow(int64_t bytes) {
  if (!may_grow_) return false;
  const int64_t size = std::max(kRegion, round_up(bytes, kHugePage));
  char* memory = static_cast<char*>(backend_->allocate(device_, size));
  if (memory == nullptr) return false;
  regions_.emplace_back(memory, size);
  reserved_bytes_ += size;
  ranges_[memory] = {size, true, true};
  free_.insert({size, memory});
  return true;
}

void* Pool::allocate(int64_t bytes) {
  const int64_t size = std::max(granule_, round_up(bytes, granule_));
  auto fit = free_.lower_bound({size, nullptr});
  if (fit == free_.end()) {
    if (!grow(size)) return nullptr;
    fit = free_.lower_bound({size, nullptr});
  }
  const int64_t found = fit->first;
  char* block = fit->second;
  free_.erase(fit);
  Range& range = ranges_[block];
  if (found > size) {
    ranges_[block + size] = {found - size, true, false};
    free_.insert({found - size, block + size});
  }
  range.bytes = size;
  range.free = false;
  live_bytes_ += size;
  peak_bytes_ = std::max(peak_bytes_, live_bytes_);
  return block;
}

void Pool::merge_with_next(Ranges::iterator range) {
  const auto next = std::next(range);
  if (next == ranges_.end() || !next->second.free || next->second.first) return;
  if (range->first + range->second.bytes != next->first) return;
  free_.erase({next->second.bytes, next->first});
  range->second.bytes += next->second.bytes;
  ranges_.erase(next);
}

void Pool::release(void* block) {
  auto range = ranges_.find(static_cast<char*>(block));
  if (range == ranges_.end() || range->second.free) return;
  live_bytes_ -= range->second.bytes;
  range->second.free = true;
  merge_with_next(range);
  if (!range->second.first && range != ranges_.begin()) {
    const auto before = std::prev(range);
    if (before->second.free && before->first + before->second.bytes == range->first) {
      free_.erase({before->second.bytes, before->first});
      merge_with_next(before);
      range = before;
    }
  }
  free_.insert({range->second.bytes, range->first});
}

}  // namespace lowrank
