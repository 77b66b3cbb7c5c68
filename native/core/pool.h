// Device memory, handed out and taken back in program order. A block that is released may be handed out again at once:
// whoever gets it is queued later on the same stream, so its last reader has run before its next writer. Peak memory is
// therefore a property of the program's text, not of timing. Used by one thread.
#pragma once
#include <map>
#include <set>
#include <utility>
#include <vector>

#include "backend.h"

namespace lowrank {

class Pool {
 public:
  Pool(const Backend* backend, void* device);
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  void* allocate(int64_t bytes);  // nullptr: no memory left
  // From now on there is this memory and no more; it belongs to somebody else.
  void adopt(void* memory, int64_t bytes);
  void release(void* block);
  void clear();  // gives everything back to the device; its stream has stopped

  int64_t live_bytes() const { return live_bytes_; }
  int64_t peak_bytes() const { return peak_bytes_; }
  int64_t reserved_bytes() const { return reserved_bytes_; }
  void reset_peak() { peak_bytes_ = live_bytes_; }

 private:
  struct Range {
    int64_t bytes;
    bool free;
    bool first;  // begins a region: never merged with what lies before it
  };
  using Ranges = std::map<char*, Range>;

  bool grow(int64_t bytes);
  void merge_with_next(Ranges::iterator range);

  const Backend* backend_;
  void* device_;
  bool may_grow_ = true;
  int64_t granule_;  // blocks begin and end at multiples of it
  Ranges ranges_;                               // by address, free and used
  std::set<std::pair<int64_t, char*>> free_;    // by size, for best fit
  std::vector<std::pair<void*, int64_t>> regions_;
  int64_t live_bytes_ = 0, peak_bytes_ = 0, reserved_bytes_ = 0;
};

}  // namespace lowrank
