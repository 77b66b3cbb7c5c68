// The plugin's one exported symbol: the backend struct of native/core/backend.h, for CUDA or, compiled by g++, for the emulator.
#include "../native/core/backend.h"

#include <new>

#include "../native/ops/all.h"
#include "probe.h"
#include "queue.h"
#include "table.h"

namespace lowrank::cuda {

namespace {

#ifdef LOWRANK_CUSIM
constexpr const char* kKind = "cusim";
#else
constexpr const char* kKind = "cuda";
#endif

Queue* as_queue(void* device) { return static_cast<Queue*>(device); }

int probe(char* why, size_t size) {
  const auto count = static_cast<int>(usable_devices(why, size).size());
  if (count > 0 && size > 0) why[0] = '\0';  // it may tell of a device that is too old
  return count;
}

void* open(const DeviceOptions& options, Failure* failure) {
  const int32_t index = options.index;
  char why[256] = "";
  const std::vector<int> usable = usable_devices(why, sizeof why);
  if (index >= 0 && index < static_cast<int32_t>(usable.size())) return Queue::open(usable[static_cast<size_t>(index)], options.stream, *failure);
  if (usable.empty()) {
    failure->set("ERR_DEVICE", "%s: %s", kKind, why);
  } else {
    failure->set("ERR_DEVICE", "%s: there are %zu devices (found index %d)", kKind, usable.size(), index);
  }
  return nullptr;
}

void info(void* device, DeviceInfo* out) {
  cudaDeviceProp properties;
  if (cudaGetDeviceProperties(&properties, as_queue(device)->device()) != cudaSuccess) return;
  snprintf(out->name, sizeof out->name, "%.127s", properties.name);
  snprintf(out->kernels, sizeof out->kernels, "sm_%d%d", properties.major, properties.minor);
  out->memory = static_cast<int64_t>(properties.totalGlobalMem);
  out->threads = properties.multiProcessorCount;
  out->matmul_precision = MatmulPrecision::highest;  // f32 activations are multiplied in f32
}

void* allocate(void* device, int64_t bytes) {
  void* memory = nullptr;
  if (cudaSetDevice(as_queue(device)->device()) == cudaSuccess && cudaMalloc(&memory, static_cast<size_t>(bytes)) == cudaSuccess) return memory;
  cudaGetLastError();
  return nullptr;
}

void deallocate(void* device, void* memory, int64_t) {
  cudaSetDevice(as_queue(device)->device());
  cudaFree(memory);
}

void launch(void* device, int32_t op, const void* contract, Failure* failure) {
  Queue& queue = *as_queue(device);
  cudaSetDevice(queue.device());
  queue.begin(failure);
  run_op(op, contract, queue);
  queue.end();
}

void* allocate_host(void* device, int64_t bytes) {
  void* memory = nullptr;
  cudaSetDevice(as_queue(device)->device());
  if (cudaMallocHost(&memory, static_cast<size_t>(bytes)) == cudaSuccess) return memory;
  cudaGetLastError();
  return nullptr;
}

Copies& copies_of(void* device, Lane lane) {
  cudaSetDevice(as_queue(device)->device());
  return as_queue(device)->copies(lane);
}

cudaEvent_t as_event(void* mark) { return static_cast<cudaEvent_t>(mark); }

void* new_mark(void* device) {
  cudaEvent_t event = nullptr;
  cudaSetDevice(as_queue(device)->device());
  // Whoever waits sleeps: there are pieces enough on their way meanwhile.
  if (cudaEventCreateWithFlags(&event, cudaEventDisableTiming | cudaEventBlockingSync) == cudaSuccess) return event;
  cudaGetLastError();
  return nullptr;
}

// Nothing thrown may cross the table: allocations of the host are all that throws here.
template <class Body>
void guarded(Failure* failure, const Body& body) {
  try {
    body();
  } catch (const std::bad_alloc&) {
    failure->set("ERR_MEMORY", "out of host memory");
  }
}

const Backend kBackend = {
    .abi = kBackendAbi,
    .ops = static_cast<int32_t>(Op::count),
    .kind = kKind,
    .activations = 1u << static_cast<int>(DType::f32) | 1u << static_cast<int>(DType::f16) | 1u << static_cast<int>(DType::bf16),
    .border = 64,
    .host_memory = 0,
    .probe = probe,
    .open =
        [](const DeviceOptions* options, Failure* failure) {
          void* device = nullptr;
          guarded(failure, [&] { device = open(*options, failure); });
          return device;
        },
    .close = [](void* device) { delete as_queue(device); },
    .info = info,
    .allocate = allocate,
    .deallocate = deallocate,
    .upload = [](void* device, void* to, const void* from, int64_t bytes, Failure* failure) { as_queue(device)->upload(to, from, bytes, failure); },
    .download =
        [](void* device, void* to, const void* from, int64_t bytes, Failure* failure) {
          guarded(failure, [&] { as_queue(device)->download(to, from, bytes, failure); });
        },
    .synchronize = [](void* device, Failure* failure) { guarded(failure, [&] { as_queue(device)->synchronize(failure); }); },
    .launch = [](void* device, int32_t op, const void* contract,
                 Failure* failure) { guarded(failure, [&] { launch(device, op, contract, failure); }); },
    .allocate_host = allocate_host,
    .deallocate_host = [](void*, void* memory) { cudaFreeHost(memory); },
    .copy_rows = [](void* device, Lane lane, const RowsCopy* rows, Failure* failure) { guarded(failure, [&] { copies_of(device, lane).copy(*rows, failure); }); },
    .clear_rows = [](void* device, Lane lane, void* memory, int64_t pitch, int64_t bytes, int64_t rows,
                     Failure* failure) { copies_of(device, lane).clear(memory, pitch, bytes, rows, failure); },
    .new_mark = new_mark,
    .delete_mark = [](void*, void* mark) { cudaEventDestroy(as_event(mark)); },
    .set_mark =
        [](void* device, Lane lane, void* mark, Failure* failure) {
          succeeded(cudaEventRecord(as_event(mark), copies_of(device, lane).stream()), "an event", failure);
        },
    .await_mark =
        [](void* device, Lane lane, void* mark, Failure* failure) {
          succeeded(cudaStreamWaitEvent(copies_of(device, lane).stream(), as_event(mark), 0), "an event", failure);
        },
    .reach_mark =
        [](void* device, void* mark, Failure* failure) {
          cudaSetDevice(as_queue(device)->device());
          succeeded(cudaEventSynchronize(as_event(mark)), "an event", failure);
        },
};

}  // namespace

}  // namespace lowrank::cuda

extern "C" __attribute__((visibility("default"))) const lowrank::Backend* lowrank_backend(int32_t abi) {
  return abi == lowrank::kBackendAbi ? &lowrank::cuda::kBackend : nullptr;
}
