// The plugin's one exported symbol: the backend struct of native/core/backend.h, for CUDA or, compiled by g++, for the emulator.
#include "../native/core/backend.h"

#include <memory>
#include <new>

#include "../native/ops/all.h"
#include "gemm/lt_library.h"
#include "graphs.h"
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

// What `open` returns.
struct Opened {
  std::unique_ptr<Queue> queue;
  bool guest;  // DeviceOptions
  Graphs graphs;
};

int current_device() {
  int device = 0;
  return cudaGetDevice(&device) == cudaSuccess ? device : 0;
}

// A call: its device is the thread's current one meanwhile. On threads of our own nothing is put back, since naming a device to CUDA takes
// memory on it.
class Call {
 public:
  explicit Call(void* device) : Call(*static_cast<Opened*>(device)) {}
  explicit Call(Opened& opened) : opened_(opened), device_(opened.queue->device()), before_(opened.guest ? current_device() : device_) {
    cudaSetDevice(device_);
  }
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;
  ~Call() {
    if (before_ != device_) cudaSetDevice(before_);
  }
  Queue* operator->() const { return opened_.queue.get(); }
  Graphs& graphs() const { return opened_.graphs; }
  // With all ops on the stream that came before, unless one of them fails: what is to come behind them.
  Queue& flushed(Failure* failure) const {
    opened_.graphs.flush(failure);
    return *opened_.queue;
  }
  Copies& copies(Lane lane, Failure* failure) const { return (lane == Lane::work ? flushed(failure) : *opened_.queue).copies(lane); }

 private:
  Opened& opened_;
  int device_, before_;
};

int probe(char* why, size_t size) {
  const auto count = static_cast<int>(usable_devices(why, size).size());
  if (count > 0 && size > 0) why[0] = '\0';  // it may tell of a device that is too old
  return count;
}

Queue* open_queue(const DeviceOptions& options, Failure* failure) {
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

void* open(const DeviceOptions& options, Failure* failure) {
  const int before = options.guest != 0 ? current_device() : -1;
  std::unique_ptr<Queue> queue(open_queue(options, failure));
  Queue* made = queue.get();
  auto* opened = made != nullptr ? new Opened{std::move(queue), options.guest != 0, {*made, options.graphs != 0}} : nullptr;
  if (before >= 0) cudaSetDevice(before);
  return opened;
}

void close(void* device) {
  const std::unique_ptr<Opened> opened(static_cast<Opened*>(device));
  const Call call(*opened);
  opened->queue.reset();
}

void info(void* device, DeviceInfo* out) {
  const Call call(device);
  cudaDeviceProp properties;
  if (cudaGetDeviceProperties(&properties, call->device()) != cudaSuccess) return;
  snprintf(out->name, sizeof out->name, "%.127s", properties.name);
  snprintf(out->kernels, sizeof out->kernels, "sm_%d%d", properties.major, properties.minor);
  out->memory = static_cast<int64_t>(properties.totalGlobalMem);
  size_t free = 0, total = 0;
  if (cudaMemGetInfo(&free, &total) == cudaSuccess) out->free_memory = static_cast<int64_t>(free);
  out->threads = properties.multiProcessorCount;
  out->ordinal = call->device();
  out->matmul_precision = MatmulPrecision::highest;  // f32 activations are multiplied in f32
  snprintf(out->products, sizeof out->products, "%s", lt_status());
}

void* allocate(void* device, int64_t bytes) {
  const Call call(device);
  void* memory = nullptr;
  if (cudaMalloc(&memory, static_cast<size_t>(bytes)) == cudaSuccess) return memory;
  cudaGetLastError();
  return nullptr;
}

void deallocate(void* device, void* memory, int64_t) {
  const Call call(device);
  cudaFree(memory);
}

void launch(void* device, int32_t op, const void* contract, Failure* failure) {
  Call(device).graphs().add(op, contract, failure);
}

void count_graphs(void* device, GraphCounts* counts) { *counts = static_cast<Opened*>(device)->graphs.counts(); }

void upload(void* device, void* to, const void* from, int64_t bytes, Failure* failure) {
  const Call call(device);
  Queue& queue = call.flushed(failure);
  if (!failure->happened()) queue.upload(to, from, bytes, failure);
}

void download(void* device, void* to, const void* from, int64_t bytes, Failure* failure) {
  const Call call(device);
  Queue& queue = call.flushed(failure);
  if (!failure->happened()) queue.download(to, from, bytes, failure);
}

void* allocate_host(void* device, int64_t bytes) {
  const Call call(device);
  void* memory = nullptr;
  if (cudaMallocHost(&memory, static_cast<size_t>(bytes)) == cudaSuccess) return memory;
  cudaGetLastError();
  return nullptr;
}

cudaEvent_t as_event(void* mark) { return static_cast<cudaEvent_t>(mark); }

void* new_mark(void* device) {
  const Call call(device);
  cudaEvent_t event = nullptr;
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
    .close = close,
    .info = info,
    .allocate = allocate,
    .deallocate = deallocate,
    .upload =
        [](void* device, void* to, const void* from, int64_t bytes, Failure* failure) {
          guarded(failure, [&] { upload(device, to, from, bytes, failure); });
        },
    .download =
        [](void* device, void* to, const void* from, int64_t bytes, Failure* failure) {
          guarded(failure, [&] { download(device, to, from, bytes, failure); });
        },
    .synchronize = [](void* device, Failure* failure) { guarded(failure, [&] { Call(device).flushed(failure).synchronize(failure); }); },
    .launch = [](void* device, int32_t op, const void* contract,
                 Failure* failure) { guarded(failure, [&] { launch(device, op, contract, failure); }); },
    .count_graphs = count_graphs,
    .kernel_bytes = [](void* device) { return static_cast<Opened*>(device)->queue->own_memory().most(); },
    .allocate_host = allocate_host,
    .deallocate_host = [](void*, void* memory) { cudaFreeHost(memory); },
    .copy_rows = [](void* device, Lane lane, const RowsCopy* rows, Failure* failure) { guarded(failure, [&] { Call(device).copies(lane, failure).copy(*rows, failure); }); },
    .clear_rows = [](void* device, Lane lane, void* memory, int64_t pitch, int64_t bytes, int64_t rows,
                     Failure* failure) { guarded(failure, [&] { Call(device).copies(lane, failure).clear(memory, pitch, bytes, rows, failure); }); },
    .new_mark = new_mark,
    .delete_mark = [](void*, void* mark) { cudaEventDestroy(as_event(mark)); },
    .set_mark =
        [](void* device, Lane lane, void* mark, Failure* failure) {
          guarded(failure, [&] {
            const Call call(device);
            succeeded(cudaEventRecord(as_event(mark), call.copies(lane, failure).stream()), "an event", failure);
          });
        },
    .await_mark =
        [](void* device, Lane lane, void* mark, Failure* failure) {
          guarded(failure, [&] {
            const Call call(device);
            succeeded(cudaStreamWaitEvent(call.copies(lane, failure).stream(), as_event(mark), 0), "an event", failure);
          });
        },
    .reach_mark =
        [](void* device, void* mark, Failure* failure) {
          const Call call(device);
          succeeded(cudaEventSynchronize(as_event(mark)), "an event", failure);
        },
};

}  // namespace

}  // namespace lowrank::cuda

extern "C" __attribute__((visibility("default"))) const lowrank::Backend* lowrank_backend(int32_t abi) {
  return abi == lowrank::kBackendAbi ? &lowrank::cuda::kBackend : nullptr;
}
