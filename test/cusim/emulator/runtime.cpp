#include "runtime.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <utility>

#include "config.h"
#include "graphs.h"
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

namespace {

Stream* resolve(Stream* stream) {
  if (stream != cudaStreamLegacy) return stream;
  read_environment();
  return streams.legacy(current_device);
}

// What kernels may have of shared memory where they have asked, by device.
class SharedAllowances {
 public:
  void set(int device, const void* kernel, size_t bytes) {
    const std::lock_guard lock(mutex_);
    bytes_[{device, kernel}] = bytes;
  }
  size_t of(int device, const void* kernel) const {
    constexpr size_t kUnasked = 48 << 10;
    const std::lock_guard lock(mutex_);
    const auto at = bytes_.find({device, kernel});
    return at == bytes_.end() ? kUnasked : std::max(at->second, kUnasked);
  }

 private:
  mutable std::mutex mutex_;
  std::map<std::pair<int, const void*>, size_t> bytes_;
} shared_allowances;

}  // namespace

cudaError_t allow_shared(const void* kernel, int bytes) {
  if (bytes < 0 || static_cast<size_t>(bytes) > config.shared_limit) {
    return note(cudaErrorInvalidValue, format("a kernel asks for %d bytes of shared memory, and a block has %zu", bytes, config.shared_limit).c_str());
  }
  return shared_allowances.set(current_device, kernel, static_cast<size_t>(bytes)), cudaSuccess;
}

namespace {

void launch_now(Stream* stream, const KernelLaunch& kernel) {
  std::vector<Streams::Access> accesses;
  if (const OperandScope* scope = OperandScope::current()) {
    for (const Operand& operand : scope->operands()) accesses.push_back({operand.data, operand.bytes, operand.role != Role::read, operand.name});
  }
  streams.begin(stream, kernel.name, accesses);
  launch(kernel.name, kernel.shape, kernel.body, kernel.bound.get());
}

}  // namespace

void launch_on(Stream* given, const KernelLaunch& kernel) {
  Stream* stream = resolve(given);
  if (stream->device != current_device) {
    note(cudaErrorInvalidResourceHandle, "a kernel is launched on a stream of a device that is not the current one");
    return;
  }
  if (const size_t allowed = shared_allowances.of(current_device, kernel.kernel); kernel.shape.shared_bytes > allowed) {
    const char* says = "cusim: %s: a launch with %zu bytes of shared memory, of which the kernel may have %zu (cudaFuncSetAttribute)";
    note(cudaErrorInvalidValue, format(says, kernel.name, kernel.shape.shared_bytes, allowed).c_str());
    return;
  }
  guarded(cudaErrorLaunchFailure, [&] {
    submit(stream, kernel.kernel, [kernel](Stream* on) { launch_now(on, kernel); });
  });
}

}  // namespace cusim

using cusim::device_memory;
using cusim::guarded;

namespace {

// Where a capturing thread may not go.
cudaError_t unless_capturing(const char* what) {
  return cusim::outside_capture() ? cudaSuccess : cusim::note(cudaErrorStreamCaptureUnsupported, what);
}

}  // namespace

const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
    case cudaSuccess: return "cudaSuccess";
    case cudaErrorMemoryAllocation: return "cudaErrorMemoryAllocation";
    case cudaErrorLaunchFailure: return "cudaErrorLaunchFailure";
    case cudaErrorInvalidResourceHandle: return "cudaErrorInvalidResourceHandle";
    case cudaErrorInvalidDevice: return "cudaErrorInvalidDevice";
    case cudaErrorNotSupported: return "cudaErrorNotSupported";
    case cudaErrorStreamCaptureUnsupported: return "cudaErrorStreamCaptureUnsupported";
    case cudaErrorStreamCaptureInvalidated: return "cudaErrorStreamCaptureInvalidated";
    case cudaErrorGraphExecUpdateFailure: return "cudaErrorGraphExecUpdateFailure";
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
// LOWRANK_CUSIM_OLD: the number of a device that is older than any that is served.
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  const char* old = std::getenv("LOWRANK_CUSIM_OLD");
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount: *value = 4; break;
    case cudaDevAttrComputeCapabilityMajor: *value = old != nullptr && std::atoi(old) == device ? 7 : 9; break;
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
  if (const cudaError_t error = unless_capturing("an allocation while a stream captures"); error != cudaSuccess) return error;
  const cudaError_t error = guarded(cudaErrorMemoryAllocation, [&] { *memory = device_memory.allocate(bytes, "an allocation", cusim::current_device); });
  if (error != cudaSuccess || *memory != nullptr) return error;
  return cusim::note(cudaErrorMemoryAllocation, "out of memory");
}
cudaError_t cudaFree(void* memory) {
  if (const cudaError_t error = unless_capturing("a release while a stream captures"); error != cudaSuccess) return error;
  cusim::streams.host_waits_for_all();
  return guarded(cudaErrorInvalidValue, [&] { device_memory.release(memory); });
}
cudaError_t cudaMallocHost(void** memory, size_t bytes) {
  if (const cudaError_t error = unless_capturing("an allocation while a stream captures"); error != cudaSuccess) return error;
  *memory = std::aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
  if (*memory == nullptr) return cusim::note(cudaErrorMemoryAllocation, "out of host memory");
  return cusim::streams.pin(*memory, bytes), cudaSuccess;
}
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* memory) {
  *attributes = {cusim::streams.pinned(memory) ? cudaMemoryTypeHost : cudaMemoryTypeUnregistered, 0};
  if (device_memory.space().contains(memory)) attributes->type = cudaMemoryTypeDevice;
  return cudaSuccess;
}
cudaError_t cudaFreeHost(void* memory) {
  cusim::streams.unpin(memory);
  return std::free(memory), cudaSuccess;
}

namespace {

void copy_rows(cusim::Stream* stream, cudaMemcpyKind kind, const cusim::RowsOfBytes& to, const cusim::RowsOfBytes& from) {
  if (kind == cudaMemcpyHostToDevice) return cusim::streams.copy_in(stream, to, from);
  const char* what = kind == cudaMemcpyDeviceToHost ? "a copy to the host" : "a copy on the device";
  cusim::streams.begin(stream, what, {{from.begin, from.extent(), false, "memory"}, {to.begin, to.extent(), true, "memory"}});
  for (size_t i = 0; i < to.rows; ++i) {
    auto* row = const_cast<char*>(to.row(i));
    if (kind == cudaMemcpyDeviceToHost) device_memory.copy_out(row, from.row(i), to.width);
    else if (kind == cudaMemcpyDeviceToDevice) device_memory.copy_within(row, from.row(i), to.width);
    else memcpy(row, from.row(i), to.width);
  }
}

void set_rows(cusim::Stream* stream, const cusim::RowsOfBytes& to, int byte) {
  cusim::streams.begin(stream, "a memset", {{to.begin, to.extent(), true, "memory"}});
  for (size_t i = 0; i < to.rows; ++i) device_memory.fill(const_cast<char*>(to.row(i)), byte, to.width);
}

}  // namespace

cudaError_t cudaMemcpy2DAsync(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width, size_t rows, cudaMemcpyKind kind, cudaStream_t stream) {
  constexpr size_t kMostPitch = 0x7fffffff;  // cudaDeviceProp::memPitch
  if (rows > 1 && (to_pitch > kMostPitch || from_pitch > kMostPitch)) return cusim::note(cudaErrorInvalidValue, "a pitch of 2^31 bytes or more");
  if (width > to_pitch || width > from_pitch) return cusim::note(cudaErrorInvalidValue, "a copy of rows that are longer than their pitch");
  const cusim::RowsOfBytes target{to, to_pitch, width, rows}, source{from, from_pitch, width, rows};
  if (kind != cudaMemcpyDeviceToDevice) {
    if (const cudaError_t error = unless_capturing("a copy from or to the host while a stream captures"); error != cudaSuccess) return error;
  }
  static const char copies = 0;
  return guarded(cudaErrorInvalidValue, [&] { cusim::submit(cusim::resolve(stream), &copies, [=](cusim::Stream* on) { copy_rows(on, kind, target, source); }); });
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  return cudaMemcpy2DAsync(to, bytes, from, bytes, bytes, 1, kind, stream);
}
cudaError_t cudaMemset2DAsync(void* memory, size_t pitch, int byte, size_t width, size_t rows, cudaStream_t stream) {
  if (width > pitch) return cusim::note(cudaErrorInvalidValue, "rows that are longer than their pitch");
  const cusim::RowsOfBytes target{memory, pitch, width, rows};
  static const char sets = 0;
  return guarded(cudaErrorInvalidValue, [&] { cusim::submit(cusim::resolve(stream), &sets, [=](cusim::Stream* on) { set_rows(on, target, byte); }); });
}
cudaError_t cudaMemsetAsync(void* memory, int byte, size_t bytes, cudaStream_t stream) { return cudaMemset2DAsync(memory, bytes, byte, bytes, 1, stream); }

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  cusim::read_environment();
  return *stream = cusim::streams.create(cusim::current_device), cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) { return cusim::streams.destroy(stream), cudaSuccess; }
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  if (const cudaError_t error = unless_capturing("a wait for a stream while a stream captures"); error != cudaSuccess) return error;
  return guarded(cudaErrorInvalidValue, [&] { cusim::streams.host_waits(cusim::resolve(stream)); });
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  if (const cudaError_t error = unless_capturing("a wait for an event while a stream captures"); error != cudaSuccess) return error;
  return guarded(cudaErrorInvalidValue, [&] { cusim::streams.wait(cusim::resolve(stream), event); });
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) { return *event = new cusim::Event_{cusim::current_device, -1, 0, {}}, cudaSuccess; }
cudaError_t cudaEventDestroy(cudaEvent_t event) { return delete event, cudaSuccess; }
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  if (const cudaError_t error = unless_capturing("an event while a stream captures"); error != cudaSuccess) return error;
  return guarded(cudaErrorInvalidValue, [&] { cusim::streams.record(event, cusim::resolve(stream)); });
}
cudaError_t cudaEventQuery(cudaEvent_t event) { return cudaEventSynchronize(event); }
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  if (const cudaError_t error = unless_capturing("a wait for an event while a stream captures"); error != cudaSuccess) return error;
  return guarded(cudaErrorInvalidValue, [&] { cusim::streams.host_waits(event); });
}

// LOWRANK_CUSIM_GRAPHS=off: as a driver that can't capture.
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  const char* setting = std::getenv("LOWRANK_CUSIM_GRAPHS");
  if (setting != nullptr && strcmp(setting, "off") == 0) return cusim::note(cudaErrorNotSupported, "graphs are switched off (LOWRANK_CUSIM_GRAPHS)");
  if (const cudaError_t error = unless_capturing("a capture begins"); error != cudaSuccess) return error;
  cusim::capture = {cusim::resolve(stream), new cusim::Graph_};
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  *graph = nullptr;
  if (cusim::capture.stream != cusim::resolve(stream)) return cusim::note(cudaErrorInvalidValue, "a capture ends that this thread did not begin");
  std::unique_ptr<cusim::Graph_> made(cusim::capture.graph);
  cusim::capture = {nullptr, nullptr};
  if (made->spoiled) return cusim::note(cudaErrorStreamCaptureInvalidated, "what was captured is not a graph: the host waited, allocated or released meanwhile");
  *graph = made.release();
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) { return delete graph, cudaSuccess; }
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) { return *exec = new cusim::GraphExec_{graph->nodes}, cudaSuccess; }
cudaError_t cudaGraphExecUpdate(cudaGraphExec_t exec, cudaGraph_t graph, cudaGraphExecUpdateResultInfo*) {
  const auto same = [](const cusim::GraphNode& a, const cusim::GraphNode& b) { return a.kind == b.kind; };
  if (!std::equal(exec->nodes.begin(), exec->nodes.end(), graph->nodes.begin(), graph->nodes.end(), same)) {
    return cusim::note(cudaErrorGraphExecUpdateFailure, "the graph has other work than the one it is to update");
  }
  return exec->nodes = graph->nodes, cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  const cudaError_t error = guarded(cudaErrorLaunchFailure, [&] {
    for (const cusim::GraphNode& node : exec->nodes) node.run(cusim::resolve(stream));
  });
  cusim::OperandScope::end_replayed();
  return error;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) { return delete exec, cudaSuccess; }
