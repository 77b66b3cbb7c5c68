// An opened device: its backend, its stream, its memory.
#pragma once
#include <memory>
#include <string>

#include "backend.h"
#include "loans.h"
#include "page_cache.h"
#include "pool.h"
#include "read_ahead.h"
#include "staging.h"
#include "stream.h"
#include "trace.h"
#include "weight_slots.h"

namespace lowrank {

class Device {
 public:
  // nullptr: `failure` tells the reason.
  static std::unique_ptr<Device> open(const char* kind, const DeviceOptions& options, Failure& failure);
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;
  ~Device();

  const Backend& backend() const { return *backend_; }
  void* state() const { return state_; }
  int32_t ordinal() const { return ordinal_; }  // DeviceInfo
  Stream& stream() { return stream_; }
  Pool& pool() { return pool_; }
  Loans& loans() { return loans_; }
  Trace& trace() { return trace_; }
  ReadAhead& read_ahead() { return read_ahead_; }
  // For the stream's thread, where the device can't read host memory.
  Staging& staging() { return staging_; }
  PageCache& page_cache() { return page_cache_; }  // where it can
  WeightSlots& weight_slots() { return weight_slots_; }  // where it can't; without bytes all weights stay
  DeviceInfo info() const;

 private:
  Device(const Backend* backend, void* state, const DeviceOptions& options);
  const Backend* backend_;
  void* state_;
  int32_t ordinal_;
  Trace trace_;
  Pool pool_;
  Loans loans_;
  Staging staging_;
  PageCache page_cache_;
  WeightSlots weight_slots_;
  ReadAhead read_ahead_;
  Stream stream_;  // last: it stops before anything it uses goes away
};

}  // namespace lowrank
