#include "runtime.h"

#include <cstdio>
#include <cstdlib>
#include <string>

#include "config.h"
#include "memory.h"
#include "operands.h"
#include "report.h"
#include "streams.h"

namespace cusim {

namespace {

thread_local int current_device = 0;

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
void read_environment() {
  const char *seed = std::getenv("LOWRANK_CUSIM_SEED"), *bytes = std::getenv("LOWRANK_CUSIM_MEMORY");
  if (seed != nullptr) config.seed = std::strtoull(seed, nullptr, 10);
  config.device_bytes = bytes != nullptr ? std::strtoull(bytes, nullptr, 10) : Config{}.device_bytes;
}

}  // namespace

void launch_on(Stream* stream, const char* kernel, const LaunchShape& shape, void (*body)(void*), void* argument) {
  if (stream->device != current_device) {
    note(cudaErrorInvalidResourceHandle, "a kernel is launched on a stream of a device that is not the current one");
    return;
  }
  guarded(cudaErrorLaunchFailure, [&] {
    std::vector<Streams::Access> accesses;
    if (const OperandScope* scope = OperandScope::current()) {
      for (const Operand& operand : scope->operands()) accesses.push_back({operand.data, operand.bytes, operand.role != Role::read, operand.name});
    }
    streams.begin(stream, kernel, accesses);
    launch(kernel, shape, body, argument);
  });
}

}  // namespace cusim

using cusim::device_memory;
using cusim::guarded;

const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
    case cudaSuccess: return "cudaSuccess";
    case cudaErrorMemoryAllocation: return "cudaErrorMemoryAllocation";
    case cudaErrorLaunchFailure: return "cudaErrorLaunchFailure";
    case cudaErrorInvalidResourceHandle: return "cudaErrorInvalidResourceHandle";
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
cudaError_t cudaGetDeviceCount(int* count) { return *count = cusim::kDevices, cudaSuccess; }
cudaError_t cudaSetDevice(int device) {
  if (device < 0 || device >= cusim::kDevices) return cusim::note(cudaErrorInvalidDevice, "the emulator has devices 0 and 1");
  return cusim::current_device = device, cudaSuccess;
}
cudaError_t cudaGetDevice(int* device) { return *device = cusim::current_device, cudaSuccess; }
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
cudaError_t cudaDeviceSynchronize() { return cusim::streams.host_waits_for_all(), cudaSuccess; }
cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  *free = device_memory.free_bytes(cusim::current_device);
  *total = device_memory.total_bytes();
  return cudaSuccess;
}

cudaError_t cudaMalloc(void** memory, size_t bytes) {
  const cudaError_t error = guarded(cudaErrorMemoryAllocation, [&] { *memory = device_memory.allocate(bytes, "an allocation", cusim::current_device); });
  if (error != cudaSuccess || *memory != nullptr) return error;
  return cusim::note(cudaErrorMemoryAllocation, "out of memory");
}
cudaError_t cudaFree(void* memory) {
  cusim::streams.host_waits_for_all();
  return guarded(cudaErrorInvalidValue, [&] { device_memory.release(memory); });
}
cudaError_t cudaMallocHost(void** memory, size_t bytes) {
  *memory = std::aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
  if (*memory == nullptr) return cusim::note(cudaErrorMemoryAllocation, "out of host memory");
  return cusim::streams.pin(*memory, bytes), cudaSuccess;
}
cudaError_t cudaFreeHost(void* memory) {
  cusim::streams.unpin(memory);
  return std::free(memory), cudaSuccess;
}

cudaError_t cudaMemcpy2DAsync(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width, size_t rows, cudaMemcpyKind kind, cudaStream_t stream) {
  constexpr size_t kMostPitch = 0x7fffffff;  // cudaDeviceProp::memPitch
  if (rows > 1 && (to_pitch > kMostPitch || from_pitch > kMostPitch)) return cusim::note(cudaErrorInvalidValue, "a pitch of 2^31 bytes or more");
  if (width > to_pitch || width > from_pitch) return cusim::note(cudaErrorInvalidValue, "a copy of rows that are longer than their pitch");
  const cusim::RowsOfBytes target{to, to_pitch, width, rows}, source{from, from_pitch, width, rows};
  return guarded(cudaErrorInvalidValue, [&] {
    if (kind == cudaMemcpyHostToDevice) return cusim::streams.copy_in(stream, target, source);
    const char* what = kind == cudaMemcpyDeviceToHost ? "a copy to the host" : "a copy on the device";
    cusim::streams.begin(stream, what, {{from, source.extent(), false, "memory"}, {to, target.extent(), true, "memory"}});
    for (size_t i = 0; i < rows; ++i) {
      auto* row = const_cast<char*>(target.row(i));
      if (kind == cudaMemcpyDeviceToHost) device_memory.copy_out(row, source.row(i), width);
      else if (kind == cudaMemcpyDeviceToDevice) device_memory.copy_within(row, source.row(i), width);
      else memcpy(row, source.row(i), width);
    }
  });
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  return cudaMemcpy2DAsync(to, bytes, from, bytes, bytes, 1, kind, stream);
}
cudaError_t cudaMemset2DAsync(void* memory, size_t pitch, int byte, size_t width, size_t rows, cudaStream_t stream) {
  if (width > pitch) return cusim::note(cudaErrorInvalidValue, "rows that are longer than their pitch");
  const cusim::RowsOfBytes target{memory, pitch, width, rows};
  return guarded(cudaErrorInvalidValue, [&] {
    cusim::streams.begin(stream, "a memset", {{memory, target.extent(), true, "memory"}});
    for (size_t i = 0; i < rows; ++i) device_memory.fill(const_cast<char*>(target.row(i)), byte, width);
  });
}
cudaError_t cudaMemsetAsync(void* memory, int byte, size_t bytes, cudaStream_t stream) { return cudaMemset2DAsync(memory, bytes, byte, bytes, 1, stream); }

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  cusim::read_environment();
  return *stream = cusim::streams.create(cusim::current_device), cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) { return cusim::streams.destroy(stream), cudaSuccess; }
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  return guarded(cudaErrorInvalidValue, [&] { cusim::streams.host_waits(stream); });
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  return guarded(cudaErrorInvalidValue, [&] { cusim::streams.wait(stream, event); });
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) { return *event = new cusim::Event_{cusim::current_device, -1, 0, {}}, cudaSuccess; }
cudaError_t cudaEventDestroy(cudaEvent_t event) { return delete event, cudaSuccess; }
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  return guarded(cudaErrorInvalidValue, [&] { cusim::streams.record(event, stream); });
}
cudaError_t cudaEventQuery(cudaEvent_t event) { return cudaEventSynchronize(event); }
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  return guarded(cudaErrorInvalidValue, [&] { cusim::streams.host_waits(event); });
}
