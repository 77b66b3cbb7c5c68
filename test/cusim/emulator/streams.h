// Streams and events. What a stream gets is run at once, in the caller's thread, but for copies from pinned memory: those are made as late
// as they may be, so that whoever fills the memory again too soon gets the wrong bytes. And whatever two streams do to the same bytes must
// be ordered by an event that one has waited for, or by the host, which has waited for the first.
#pragma once
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <mutex>
#include <vector>

#include "memory.h"

namespace cusim {

// By stream: how much of its work is certain to be over.
using Seen = std::vector<uint64_t>;

// Rows of bytes, `pitch` apart.
struct RowsOfBytes {
  const void* begin;
  size_t pitch, width, rows;

  size_t extent() const { return rows == 0 ? 0 : (rows - 1) * pitch + width; }
  const char* row(size_t i) const { return static_cast<const char*>(begin) + i * pitch; }
};

struct Stream {
  struct Copy {
    RowsOfBytes to, from;
    uint64_t time;
  };
  int device;
  uint32_t number;
  uint64_t time = 0;  // of its last work
  Seen seen;
  std::deque<Copy> pending;
};

struct Event_ {
  int device;
  int64_t stream = -1;  // by number; -1: it was never recorded
  uint64_t time = 0;
  Seen seen;
};

// Any host thread may call these; there is one of it. They throw Error.
class Streams {
 public:
  Stream* create(int device);
  Stream* legacy(int device);  // the default stream; here it orders nothing but what is on it
  void destroy(Stream* stream);
  void record(Event_* event, Stream* stream);
  void wait(Stream* stream, Event_* event);
  void host_waits(Event_* event);
  void host_waits(Stream* stream);
  void host_waits_for_all();

  // Work that begins on `stream` and will touch device memory: whether it may. Pending copies of the stream come first.
  struct Access {
    const void* begin;
    size_t bytes;
    bool write;
    const char* name;
  };
  void begin(Stream* stream, const char* what, const std::vector<Access>& accesses);
  // Rows from the host: now, or from pinned memory later.
  void copy_in(Stream* stream, const RowsOfBytes& to, const RowsOfBytes& from);

  void pin(void* memory, size_t bytes);
  void unpin(void* memory);
  bool pinned(const void* p);

 private:
  struct Stamp {
    uint32_t stream;
    uint64_t time;  // 0: nobody
  };
  struct Range {
    uintptr_t end;
    Stamp write;
    std::vector<Stamp> reads;
  };
  using Ranges = std::map<uintptr_t, Range>;

  bool ordered(const Stamp& stamp, const Stream& stream) const;
  void cut(uintptr_t at);
  void touch(Stream& stream, const char* what, const Access& access);
  void advance(Stream& stream, const char* what, const std::vector<Access>& accesses);
  void flush(Stream& stream, uint64_t time);
  void flush(const Event_& event);
  bool is_pinned(const void* p) const;
  void forget_what_is_over();

  std::mutex mutex_;
  Stream* legacy_[kDevices] = {};
  std::vector<Stream*> streams_;  // by number; nullptr: destroyed
  Seen seen_by_host_;
  Ranges ranges_;  // that don't overlap, by begin
  std::map<uintptr_t, size_t> pinned_;
};

extern Streams streams;

}  // namespace cusim
