#include "../backend.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <memory>
#include <mutex>
#include <new>
#include <set>
#include <string>
#include <vector>

#include "../../ops/all.h"
#include "../table.h"
#include "workers.h"

namespace lowrank::cpu {

namespace {

constexpr int64_t kHugePage = 2 << 20;

// 2 MiB pages where they can be had: malloc gets 4 KiB pages unless somebody asks, and the TLB misses show in a GEMM.
void* map_memory(int64_t bytes) {
  void* memory = nullptr;
  const int64_t align = bytes >= kHugePage ? kHugePage : kScratchAlign;
  if (posix_memalign(&memory, static_cast<size_t>(align), static_cast<size_t>(bytes)) != 0) return nullptr;
  if (bytes >= kHugePage) madvise(memory, static_cast<size_t>(bytes), MADV_HUGEPAGE);
  return memory;
}

struct Free {
  void operator()(void* memory) const { free(memory); }
};

// Scratch of one worker: grows to what the greediest op asked for, then stays.
class Scratch {
 public:
  void* take(int64_t bytes) {
    const int64_t size = (bytes + kScratchAlign - 1) / kScratchAlign * kScratchAlign;
    if (chunk_ < chunks_.size() && used_ + size > chunks_[chunk_].bytes) ++chunk_, used_ = 0;
    if (chunk_ == chunks_.size() || used_ + size > chunks_[chunk_].bytes) return take_new(size);
    void* result = static_cast<char*>(chunks_[chunk_].memory.get()) + used_;
    used_ += size;
    return result;
  }
  // Ends an op. Several chunks become one, so that the next op like this one finds its memory in one piece.
  void reset() {
    if (chunks_.size() > 1) {
      int64_t all = 0;
      for (const Chunk& chunk : chunks_) all += chunk.bytes;
      chunks_.clear();
      chunk_ = 0, used_ = 0;
      take_new(all);
    }
    chunk_ = 0, used_ = 0;
  }

 private:
  struct Chunk {
    std::unique_ptr<void, Free> memory;
    int64_t bytes;
  };
  void* take_new(int64_t size) {
    const int64_t bytes = size < (1 << 20) ? 1 << 20 : size;
    void* memory = map_memory(bytes);
    if (memory == nullptr) return nullptr;
    chunks_.push_back({std::unique_ptr<void, Free>(memory), bytes});
    chunk_ = chunks_.size() - 1;
    used_ = size;
    return memory;
  }
  std::vector<Chunk> chunks_;
  size_t chunk_ = 0;
  int64_t used_ = 0;
};

class CpuDevice {
 public:
  CpuDevice(const Table* table, int threads, FrozenProducts frozen)
      : table_(table), frozen_(frozen), workers_(threads), scratch_(static_cast<size_t>(workers_.threads()) + 1) {}

  void launch(int32_t op, const void* contract, Failure* failure) {
    failure_ = failure;
    const Context context{this, workers_.threads(), frozen_, run, scratch, fail, tells_plans_ ? tell : nullptr};
    table_->kernels[op](contract, context);
    for (Scratch& scratch : scratch_) scratch.reset();
  }
  const Table* table() const { return table_; }
  FrozenProducts frozen() const { return frozen_; }
  int threads() const { return workers_.threads(); }

 private:
  static void run(void* self, int64_t tasks, Workers::Task task, void* arg) {
    static_cast<CpuDevice*>(self)->workers_.run(tasks, task, arg);
  }
  static void* scratch(void* self, int worker, int64_t bytes) {
    auto* device = static_cast<CpuDevice*>(self);
    void* memory = device->scratch_[static_cast<size_t>(worker + 1)].take(bytes);
    if (memory == nullptr) fail(self, "ERR_MEMORY", "no memory for %lld bytes of scratch", static_cast<long long>(bytes));
    return memory;
  }
  static void tell(void* self, const char* plan) {
    if (static_cast<CpuDevice*>(self)->told_.insert(plan).second) fprintf(stderr, "%s\n", plan);
  }
  __attribute__((format(printf, 3, 4))) static void fail(void* self, const char* code, const char* format, ...) {
    auto* device = static_cast<CpuDevice*>(self);
    const std::lock_guard lock(device->fail_mutex_);
    if (device->failure_->happened()) return;
    va_list arguments;
    va_start(arguments, format);
    device->failure_->set(code, format, arguments);
    va_end(arguments);
  }

  const Table* table_;
  FrozenProducts frozen_;
  bool tells_plans_ = getenv("LOWRANK_PLAN") != nullptr && strcmp(getenv("LOWRANK_PLAN"), "1") == 0;
  std::set<std::string> told_;  // each plan once
  Workers workers_;
  std::vector<Scratch> scratch_;  // [0] belongs to the op as a whole, [1 + worker] to a worker
  Failure* failure_ = nullptr;
  std::mutex fail_mutex_;
};

CpuDevice* as_device(void* device) { return static_cast<CpuDevice*>(device); }

int thread_count() {
  if (const char* chosen = getenv("LOWRANK_THREADS")) {
    const int threads = atoi(chosen);
    if (threads >= 1 && threads <= 1024) return threads;
  }
  const long cores = sysconf(_SC_NPROCESSORS_ONLN);
  return cores < 1 ? 1 : static_cast<int>(cores);
}

AmxUse amx_use(Failure* failure) {
  const char* text = getenv("LOWRANK_AMX");
  if (text == nullptr || text[0] == 0) return AmxUse::usual;
  if (strcmp(text, "off") == 0) return AmxUse::off;
  if (strcmp(text, "emulated") != 0) failure->set("ERR_DEVICE", "LOWRANK_AMX must be off or emulated (found %s)", text);
  return AmxUse::emulated;
}

int probe(char* why, size_t size) { return choose_table(why, size) != nullptr ? 1 : 0; }

void* open(const DeviceOptions* options, Failure* failure) {
  char why[256] = "";
  const Table* table = choose_table(why, sizeof why);
  if (options->index != 0) failure->set("ERR_DEVICE", "cpu: there is one CPU device (found index %d)", options->index);
  if (table == nullptr) failure->set("ERR_DEVICE", "cpu: %s", why);
  const AmxUse amx = amx_use(failure);
  if (failure->happened()) return nullptr;
  const FrozenProducts frozen = options->matmul_precision == MatmulPrecision::medium ? medium_products(table, amx) : FrozenProducts::f32;
  const int threads = options->threads > 0 ? options->threads : thread_count();
  return new (std::nothrow) CpuDevice(table, threads, frozen);
}

void read_processor_name(char* name, size_t size) {
  snprintf(name, size, "CPU");
  FILE* file = fopen("/proc/cpuinfo", "r");
  if (file == nullptr) return;
  char line[256];
  while (fgets(line, sizeof line, file) != nullptr) {
    const char* colon = strncmp(line, "model name", 10) == 0 ? strchr(line, ':') : nullptr;
    if (colon == nullptr) continue;
    snprintf(name, size, "%.*s", static_cast<int>(strcspn(colon + 2, "\n")), colon + 2);
    break;
  }
  fclose(file);
}

const char* name_of(FrozenProducts frozen) {
  switch (frozen) {
    case FrozenProducts::f32: return "";
    case FrozenProducts::pairs: return "bf16 by AVX512-BF16";
    case FrozenProducts::tiles: return "bf16 by AMX";
    case FrozenProducts::emulated_tiles: return "bf16 by an emulation of AMX";
  }
  return "";
}

void info(void* device, DeviceInfo* out) {
  read_processor_name(out->name, sizeof out->name);
  snprintf(out->kernels, sizeof out->kernels, "%s", as_device(device)->table()->isa);
  out->memory = static_cast<int64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGESIZE);
  out->threads = as_device(device)->threads();
  const FrozenProducts frozen = as_device(device)->frozen();
  out->matmul_precision = frozen == FrozenProducts::f32 ? MatmulPrecision::highest : MatmulPrecision::medium;
  snprintf(out->products, sizeof out->products, "%s", name_of(frozen));
}

void copy(void*, void* to, const void* from, int64_t bytes, Failure*) { memcpy(to, from, static_cast<size_t>(bytes)); }

const Backend kBackend = {
    .abi = kBackendAbi,
    .ops = static_cast<int32_t>(Op::count),
    .kind = "cpu",
    .activations = 1u << static_cast<int>(DType::f32),
    .border = 0,
    .host_memory = 1,
    .probe = probe,
    .open = open,
    .close = [](void* device) { delete as_device(device); },
    .info = info,
    .allocate = [](void*, int64_t bytes) { return map_memory(bytes); },
    .deallocate = [](void*, void* memory, int64_t) { free(memory); },
    .upload = copy,
    .download = copy,
    .synchronize = [](void*, Failure*) {},
    .launch =
        [](void* device, int32_t op, const void* contract, Failure* failure) {
          const FloatMode mode;
          as_device(device)->launch(op, contract, failure);
        },
    .count_graphs = nullptr,
    .kernel_bytes = nullptr,
    // Nothing is brought to memory that the host reads.
    .allocate_host = nullptr,
    .deallocate_host = nullptr,
    .copy_rows = nullptr,
    .clear_rows = nullptr,
    .new_mark = nullptr,
    .delete_mark = nullptr,
    .set_mark = nullptr,
    .await_mark = nullptr,
    .reach_mark = nullptr,
};

}  // namespace

const Backend* backend() { return &kBackend; }

}  // namespace lowrank::cpu
