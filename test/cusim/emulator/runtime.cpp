#include "runtime.h"

#include <cstdio>
#include <cstdlib>
#include <string>

#include "config.h"
#include "memory.h"
#include "report.h"

namespace cusim {

struct Stream {};
struct Event_ {
  bool recorded = false;
};

namespace {

// Of one host thread: CUDA keeps the last error per thread, too.
thread_local cudaError_t last_error = cudaSuccess;
thread_local std::string last_report;

cudaError_t note(cudaError_t error, const char* report) {
  last_error = error;
  last_report = report;
  return error;
}

template <class Body>
cudaError_t guarded(cudaError_t error, const Body& body) {
  try {
    body();
    return cudaSuccess;
  } catch (const std::exception& thrown) {
    return note(error, thrown.what());
  }
}

// When a stream is made, because then no other thread can be changing the environment.
void read_seed() {
  const char* seed = std::getenv("LOWRANK_CUSIM_SEED");
  if (seed != nullptr) config.seed = std::strtoull(seed, nullptr, 10);
}

}  // namespace

void launch_on(Stream*, const char* kernel, const LaunchShape& shape, void (*body)(void*), void* argument) {
  guarded(cudaErrorLaunchFailure, [&] { launch(kernel, shape, body, argument); });
}

}  // namespace cusim

using cusim::device_memory;
using cusim::guarded;

const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
    case cudaSuccess: return "cudaSuccess";
    case cudaErrorMemoryAllocation: return "cudaErrorMemoryAllocation";
    case cudaErrorLaunchFailure: return "cudaErrorLaunchFailure";
    case cudaErrorInvalidDevice: return "cudaErrorInvalidDevice";
    default: return "cudaErrorInvalidValue";
  }
}
const char* cudaGetErrorString(cudaError_t error) {
  if (error == cudaSuccess) return "no error";
  return cusim::last_report.empty() ? cudaGetErrorName(error) : cusim::last_report.c_str();
}
cudaError_t cudaGetLastError() {
  const cudaError_t error = cusim::last_error;
  cusim::last_error = cudaSuccess;
  return error;
}
cudaError_t cudaPeekAtLastError() { return cusim::last_error; }

cudaError_t cudaDriverGetVersion(int* version) { return *version = 13000, cudaSuccess; }
cudaError_t cudaRuntimeGetVersion(int* version) { return *version = 13000, cudaSuccess; }
cudaError_t cudaGetDeviceCount(int* count) { return *count = 2, cudaSuccess; }
cudaError_t cudaSetDevice(int device) {
  if (device < 0 || device > 1) return cusim::note(cudaErrorInvalidDevice, "the emulator has devices 0 and 1");
  return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  *properties = {};
  snprintf(properties->name, sizeof properties->name, "CUDA emulator");
  properties->major = 9;
  properties->multiProcessorCount = 4;
  properties->totalGlobalMem = device_memory.total_bytes();
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount: *value = 4; break;
    case cudaDevAttrComputeCapabilityMajor: *value = 9; break;
    case cudaDevAttrComputeCapabilityMinor: *value = 0; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = static_cast<int>(cusim::config.shared_limit); break;
  }
  return cudaSuccess;
}
cudaError_t cudaDeviceSynchronize() { return cudaSuccess; }
cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  *free = device_memory.free_bytes();
  *total = device_memory.total_bytes();
  return cudaSuccess;
}

cudaError_t cudaMalloc(void** memory, size_t bytes) {
  const cudaError_t error = guarded(cudaErrorMemoryAllocation, [&] { *memory = device_memory.allocate(bytes, "an allocation"); });
  if (error != cudaSuccess || *memory != nullptr) return error;
  return cusim::note(cudaErrorMemoryAllocation, "out of memory");
}
cudaError_t cudaFree(void* memory) {
  return guarded(cudaErrorInvalidValue, [&] { device_memory.release(memory); });
}
cudaError_t cudaMallocHost(void** memory, size_t bytes) {
  *memory = std::aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
  return *memory != nullptr ? cudaSuccess : cusim::note(cudaErrorMemoryAllocation, "out of host memory");
}
cudaError_t cudaFreeHost(void* memory) { return std::free(memory), cudaSuccess; }

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t) {
  return guarded(cudaErrorInvalidValue, [&] {
    switch (kind) {
      case cudaMemcpyHostToHost: memcpy(to, from, bytes); break;
      case cudaMemcpyHostToDevice: device_memory.copy_in(to, from, bytes); break;
      case cudaMemcpyDeviceToHost: device_memory.copy_out(to, from, bytes); break;
      case cudaMemcpyDeviceToDevice: device_memory.copy_within(to, from, bytes); break;
    }
  });
}
cudaError_t cudaMemsetAsync(void* memory, int byte, size_t bytes, cudaStream_t) {
  return guarded(cudaErrorInvalidValue, [&] { device_memory.fill(memory, byte, bytes); });
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  cusim::read_seed();
  *stream = new cusim::Stream;
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) { return delete stream, cudaSuccess; }
cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }
cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t event, unsigned) {
  return event->recorded ? cudaSuccess : cusim::note(cudaErrorInvalidValue, "a stream waits for an event that was never recorded");
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) { return *event = new cusim::Event_, cudaSuccess; }
cudaError_t cudaEventDestroy(cudaEvent_t event) { return delete event, cudaSuccess; }
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t) { return event->recorded = true, cudaSuccess; }
cudaError_t cudaEventQuery(cudaEvent_t) { return cudaSuccess; }
cudaError_t cudaEventSynchronize(cudaEvent_t) { return cudaSuccess; }
