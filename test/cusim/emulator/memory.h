// Device memory and shared memory: each allocation ends at a guard page and is full of NaN until somebody writes it.
#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>

namespace cusim {

constexpr int kDevices = 2;

// A stretch of addresses and what the checker knows about each of its bytes (see checker.h).
struct Cell;
struct Space {
  unsigned char* base = nullptr;
  size_t bytes = 0;
  uint8_t* written = nullptr;  // 1: somebody has written the byte
  Cell* cells = nullptr;       // who wrote and who read it last

  bool contains(const void* p) const { return static_cast<size_t>(static_cast<const unsigned char*>(p) - base) < bytes; }
  size_t offset(const void* p) const { return static_cast<size_t>(static_cast<const unsigned char*>(p) - base); }
};

struct Allocation {
  unsigned char* begin;
  size_t bytes, mapped;  // mapped: whole pages, up to the guard
  std::string name;
  int device;

  unsigned char* pages() const;
};

// Host threads may call this at any time; it has a lock of its own.
class DeviceMemory {
 public:
  // nullptr when the device is full. 16-byte granularity towards the guard page, 256-byte aligned from 256 bytes on.
  void* allocate(size_t bytes, const char* name, int device = 0);
  void release(void* memory);
  const Space& space() const { return space_; }
  // The allocation that `p` lies in, or the nearest one; false when there is none.
  bool find(const void* p, Allocation& found) const;
  void copy_in(void* to, const void* from, size_t bytes);
  void copy_out(void* to, const void* from, size_t bytes) const;  // fails on bytes nobody wrote (checked mode)
  void copy_within(void* to, const void* from, size_t bytes);
  void fill(void* to, int byte, size_t bytes);
  void require_range(const void* p, size_t bytes, const char* what) const;  // of one allocation
  size_t free_bytes(int device) const;
  size_t total_bytes() const;

 private:
  unsigned char* take_pages(size_t bytes);

  mutable std::mutex mutex_;
  Space space_;
  size_t next_ = 0, used_[kDevices] = {};
  std::map<uintptr_t, Allocation> allocations_;           // by first byte
  std::multimap<size_t, unsigned char*> free_pages_;      // by size; handed out when the addresses are used up
};

class SharedMemory {
 public:
  void configure(size_t bytes);  // for the blocks of a launch
  void begin_block();            // NaN and nobody's
  bool end_is_intact() const;    // nobody wrote behind the last byte
  unsigned char* data() const { return data_; }
  size_t bytes() const { return bytes_; }
  bool holds(const void* p, size_t bytes) const;
  const Space& space() const { return space_; }

 private:
  Space space_;
  unsigned char* data_ = nullptr;
  size_t bytes_ = 0;
};

extern DeviceMemory device_memory;
extern SharedMemory shared_memory;

}  // namespace cusim
