#include "memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "checker.h"
#include "config.h"
#include "fiber.h"
#include "kernel.h"
#include "report.h"

namespace cusim {

DeviceMemory device_memory;
SharedMemory shared_memory;

namespace {

constexpr size_t kAddresses = size_t{16} << 30, kSharedBytes = 1 << 20;
constexpr int kPoison = 0xff;  // NaN in f32, f16 and bf16

size_t round_up(size_t n, size_t unit) { return (n + unit - 1) / unit * unit; }

void* reserve(size_t bytes, int protection) {
  void* memory = mmap(nullptr, bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw Error("cusim: no address space");
  return memory;
}

// Pages of the shadow appear when they are touched, so its size costs nothing.
Space make_space(size_t bytes, int protection) {
  Space space;
  space.base = static_cast<unsigned char*>(reserve(bytes, protection));
  space.bytes = bytes;
  space.written = static_cast<uint8_t*>(reserve(bytes, PROT_READ | PROT_WRITE));
  space.cells = static_cast<Cell*>(reserve(bytes * sizeof(Cell), PROT_READ | PROT_WRITE));
  return space;
}

}  // namespace

unsigned char* Allocation::pages() const { return begin + round_up(bytes, bytes < 256 ? 16 : 256) - mapped; }

unsigned char* DeviceMemory::take_pages(size_t bytes) {
  if (space_.base == nullptr) space_ = make_space(kAddresses, PROT_NONE);
  const size_t with_guard = bytes + kPage;
  if (next_ + with_guard <= kAddresses) return space_.base + std::exchange(next_, next_ + with_guard);
  const auto old = free_pages_.find(bytes);
  if (old == free_pages_.end()) return nullptr;
  unsigned char* pages = old->second;
  free_pages_.erase(old);
  return pages;
}

void* DeviceMemory::allocate(size_t bytes, const char* name, int device) {
  const std::lock_guard lock(mutex_);
  const size_t body = round_up(bytes, bytes < 256 ? 16 : 256), mapped = std::max(kPage, round_up(body, kPage));
  if (used_[device] + mapped > config.device_bytes) return nullptr;
  unsigned char* pages = take_pages(mapped);
  if (pages == nullptr) return nullptr;
  mprotect(pages, mapped, PROT_READ | PROT_WRITE);
  memset(pages, kPoison, mapped);
  unsigned char* begin = pages + mapped - body;
  if (checked()) memset(space_.written + space_.offset(pages), 0, mapped);
  allocations_[reinterpret_cast<uintptr_t>(begin)] = {begin, bytes, mapped, name, device};
  used_[device] += mapped;
  return begin;
}

void DeviceMemory::release(void* memory) {
  if (memory == nullptr) return;
  const std::lock_guard lock(mutex_);
  const auto found = allocations_.find(reinterpret_cast<uintptr_t>(memory));
  if (found == allocations_.end()) throw Error("cusim: a pointer is freed that was not allocated, or was freed before");
  const Allocation& gone = found->second;
  unsigned char* pages = gone.pages();
  const size_t offset = space_.offset(pages);
  madvise(pages, gone.mapped, MADV_DONTNEED);
  mprotect(pages, gone.mapped, PROT_NONE);
  if (checked()) {
    madvise(space_.written + offset / kPage * kPage, gone.mapped, MADV_DONTNEED);
    madvise(reinterpret_cast<void*>(space_.cells + offset), gone.mapped * sizeof(Cell), MADV_DONTNEED);
  }
  used_[gone.device] -= gone.mapped;
  free_pages_.insert({gone.mapped, pages});
  allocations_.erase(found);
}

bool DeviceMemory::find(const void* p, Allocation& found) const {
  const std::lock_guard lock(mutex_);
  if (allocations_.empty()) return false;
  auto next = allocations_.upper_bound(reinterpret_cast<uintptr_t>(p));
  if (next != allocations_.begin()) --next;
  found = next->second;
  return true;
}

void DeviceMemory::require_range(const void* p, size_t bytes, const char* what) const {
  Allocation in;
  if (!space_.contains(p) || !find(p, in)) throw Error(format("cusim: %s: not an address of the device", what));
  const auto* at = static_cast<const unsigned char*>(p);
  if (at >= in.begin && at + bytes <= in.begin + in.bytes) return;
  throw Error(format("cusim: %s: bytes [%td, %td) do not lie in %s (%zu bytes)", what, at - in.begin, at - in.begin + static_cast<ptrdiff_t>(bytes),
                     in.name.c_str(), in.bytes));
}

void DeviceMemory::copy_in(void* to, const void* from, size_t bytes) {
  if (bytes == 0) return;
  require_range(to, bytes, "copy to the device");
  memcpy(to, from, bytes);
  if (checked()) memset(space_.written + space_.offset(to), 1, bytes);
}

void DeviceMemory::fill(void* to, int byte, size_t bytes) {
  if (bytes == 0) return;
  require_range(to, bytes, "memset");
  memset(to, byte, bytes);
  if (checked()) memset(space_.written + space_.offset(to), 1, bytes);
}

void DeviceMemory::copy_within(void* to, const void* from, size_t bytes) {
  if (bytes == 0) return;
  require_range(to, bytes, "copy on the device");
  require_range(from, bytes, "copy on the device");
  memmove(to, from, bytes);
  if (checked()) memmove(space_.written + space_.offset(to), space_.written + space_.offset(from), bytes);
}

void DeviceMemory::copy_out(void* to, const void* from, size_t bytes) const {
  if (bytes == 0) return;
  require_range(from, bytes, "copy to the host");
  memcpy(to, from, bytes);
  if (!checked()) return;
  const uint8_t* written = space_.written + space_.offset(from);
  const void* gap = memchr(written, 0, bytes);
  if (gap != nullptr) throw Error(format("cusim: copy to the host: nobody wrote byte %td of %zu", static_cast<const uint8_t*>(gap) - written, bytes));
}

size_t DeviceMemory::total_bytes() const { return config.device_bytes; }

size_t DeviceMemory::free_bytes(int device) const {
  const std::lock_guard lock(mutex_);
  return config.device_bytes - std::min(config.device_bytes, used_[device]);
}

void SharedMemory::configure(size_t bytes) {
  if (space_.base == nullptr) {
    space_ = make_space(kSharedBytes + kPage, PROT_READ | PROT_WRITE);
    mprotect(space_.base + kSharedBytes, kPage, PROT_NONE);
  }
  bytes_ = bytes;
  data_ = space_.base + kSharedBytes - round_up(bytes, 1024);
}

void SharedMemory::begin_block() {
  memset(data_, kPoison, static_cast<size_t>(space_.base + kSharedBytes - data_));
  if (checked()) memset(space_.written + space_.offset(data_), 0, bytes_);
}

bool SharedMemory::end_is_intact() const {
  return std::all_of(data_ + bytes_, space_.base + kSharedBytes, [](unsigned char byte) { return byte == kPoison; });
}

unsigned char* shared_bytes() { return shared_memory.data(); }

bool SharedMemory::holds(const void* p, size_t bytes) const {
  const auto* at = static_cast<const unsigned char*>(p);
  return at >= data_ && at + bytes <= data_ + bytes_;
}

}  // namespace cusim
