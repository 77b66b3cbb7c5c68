// What every function of the C ABI shares: the context behind the handle, and the way of a failure to the caller.
#pragma once
#include <mutex>
#include <new>
#include <vector>

#include "../core/backend.h"
#include "../include/lowrank.h"

struct lowrank_context {
  const lowrank::Backend* backend;
  void* device;
  int32_t device_type, device_index;
  std::mutex mutex;            // held by whoever computes
  std::vector<char> staging;   // rows without gaps, for operands whose rows have some (CPU)
};

namespace lowrank::capi {

// "cpu", "cuda", "cusim"; nullptr: no such type.
const char* kind_of(int32_t device_type);

// Keeps a failure for lowrank_last_error of this thread.
lowrank_status keep(const Failure& failure);

// Runs body(failure); nothing thrown gets past it.
template <class Body>
lowrank_status guarded(const char* what, const Body& body) noexcept {
  Failure failure;
  failure.code[0] = 0;
  try {
    body(failure);
  } catch (const std::bad_alloc&) {
    failure.set("ERR_MEMORY", "%s: out of host memory", what);
  } catch (...) {
    failure.set("ERR_INTERNAL", "%s: an exception", what);
  }
  return failure.happened() ? keep(failure) : LOWRANK_OK;
}

// The same for a function that needs its context, and has it alone.
template <class Body>
lowrank_status in_context(const char* what, lowrank_context* context, const Body& body) noexcept {
  return guarded(what, [&](Failure& failure) {
    if (context == nullptr) return failure.set("ERR_ARGUMENT", "%s: a context must be given (found NULL)", what);
    const std::lock_guard lock(context->mutex);
    body(failure);
  });
}

}  // namespace lowrank::capi
