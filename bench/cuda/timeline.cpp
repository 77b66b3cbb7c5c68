// When each kernel, copy and fill of a process ran on the GPU: a library that CUDA itself loads into any process, whatever it is written in.
//   CUDA_INJECTION64_PATH=.../timeline.so LOWRANK_TIMELINE=FILE PROGRAM
// At the end of the process FILE has a line for each, by their starts: what (kernel, copy, fill), name, start and end in ns, stream, graph
// node (0: launched outside of graphs), bytes of a copy or fill, with tabs between. A line `fault`, why says that there is no such record,
// a line `lost`, n that n of them are missing.
// CUPTI is looked for by its name, which finds the one that PyTorch brought along, then where LOWRANK_CUPTI says.
#include <cupti.h>
#include <cxxabi.h>
#include <dlfcn.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

namespace {

/// The functions of CUPTI that are used; nothing is linked with it.
struct Cupti {
  decltype(&cuptiActivityRegisterCallbacks) register_callbacks;
  decltype(&cuptiActivityEnable) enable;
  decltype(&cuptiActivityGetNextRecord) next_record;
  decltype(&cuptiActivityGetNumDroppedRecords) dropped_records;
  decltype(&cuptiActivityFlushAll) flush_all;
  decltype(&cuptiGetResultString) result_string;
};

struct Event {
  const char* what;
  uint32_t name;  // of Timeline::names
  uint32_t stream;
  uint64_t start, end, node, bytes;
};

/// What was recorded. CUPTI's own thread delivers it, the end of the process writes it.
struct Timeline {
  Cupti cupti{};
  std::string file;
  std::mutex guard;
  std::vector<Event> events;
  std::vector<std::string> names;
  std::unordered_map<std::string, uint32_t> numbers;
  size_t dropped = 0;

  uint32_t number_of(const char* name) {
    const auto [at, is_new] = numbers.try_emplace(name == nullptr ? "?" : name, static_cast<uint32_t>(names.size()));
    if (is_new) names.push_back(at->first);
    return at->second;
  }
};

// Never destroyed: CUPTI's thread may deliver while statics are going.
Timeline& timeline() {
  static auto* made = new Timeline;
  return *made;
}

constexpr size_t kBufferBytes = 8 << 20;
constexpr size_t kBufferAlignment = 8;  // what CUPTI asks for

void CUPTIAPI give_buffer(uint8_t** buffer, size_t* size, size_t* most_records) {
  *buffer = static_cast<uint8_t*>(std::aligned_alloc(kBufferAlignment, kBufferBytes));
  *size = *buffer == nullptr ? 0 : kBufferBytes;
  *most_records = 0;  // as many as fit
}

const char* copy_name(uint8_t kind) {
  switch (kind) {
    case CUPTI_ACTIVITY_MEMCPY_KIND_HTOD: return "to the device";
    case CUPTI_ACTIVITY_MEMCPY_KIND_DTOH: return "to the host";
    case CUPTI_ACTIVITY_MEMCPY_KIND_DTOD: return "on the device";
    default: return "other";
  }
}

void add(const CUpti_Activity& record) {
  Timeline& all = timeline();
  switch (record.kind) {
    case CUPTI_ACTIVITY_KIND_KERNEL:
    case CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL: {
      const auto& kernel = reinterpret_cast<const CUpti_ActivityKernel10&>(record);
      return all.events.push_back({"kernel", all.number_of(kernel.name), kernel.streamId, kernel.start, kernel.end, kernel.graphNodeId, 0});
    }
    case CUPTI_ACTIVITY_KIND_MEMCPY: {
      const auto& copy = reinterpret_cast<const CUpti_ActivityMemcpy6&>(record);
      return all.events.push_back({"copy", all.number_of(copy_name(copy.copyKind)), copy.streamId, copy.start, copy.end, copy.graphNodeId, copy.bytes});
    }
    case CUPTI_ACTIVITY_KIND_MEMSET: {
      const auto& fill = reinterpret_cast<const CUpti_ActivityMemset4&>(record);
      return all.events.push_back({"fill", all.number_of("memory"), fill.streamId, fill.start, fill.end, fill.graphNodeId, fill.bytes});
    }
    default: return;
  }
}

void CUPTIAPI take_buffer(CUcontext, uint32_t, uint8_t* buffer, size_t, size_t valid) {
  Timeline& all = timeline();
  const std::lock_guard lock(all.guard);
  CUpti_Activity* record = nullptr;
  while (valid > 0 && all.cupti.next_record(buffer, valid, &record) == CUPTI_SUCCESS) add(*record);
  size_t dropped = 0;
  if (all.cupti.dropped_records(nullptr, 0, &dropped) == CUPTI_SUCCESS) all.dropped += dropped;
  std::free(buffer);
}

std::string readable(const std::string& name) {
  int status = 0;
  const std::unique_ptr<char, decltype(&std::free)> demangled(abi::__cxa_demangle(name.c_str(), nullptr, nullptr, &status), &std::free);
  return status == 0 ? demangled.get() : name;
}

struct Close {
  void operator()(FILE* file) const { fclose(file); }
};

std::unique_ptr<FILE, Close> open_file() {
  std::unique_ptr<FILE, Close> file(fopen(timeline().file.c_str(), "w"));
  if (file == nullptr) perror(timeline().file.c_str());
  return file;
}

void write_fault(const char* why) {
  if (const auto file = open_file()) fprintf(file.get(), "fault\t%s\n", why);
}

void write_events() {
  Timeline& all = timeline();
  all.cupti.flush_all(CUPTI_ACTIVITY_FLAG_FLUSH_FORCED);
  const std::lock_guard lock(all.guard);
  if (all.events.empty()) return write_fault("CUPTI delivered nothing");
  const auto file = open_file();
  if (file == nullptr) return;
  if (all.dropped > 0) fprintf(file.get(), "lost\t%zu\n", all.dropped);
  std::vector<std::string> names;
  for (const std::string& name : all.names) names.push_back(readable(name));
  std::sort(all.events.begin(), all.events.end(), [](const Event& a, const Event& b) { return a.start < b.start; });
  for (const Event& event : all.events) {
    fprintf(file.get(), "%s\t%s\t%llu\t%llu\t%u\t%llu\t%llu\n", event.what, names[event.name].c_str(), static_cast<unsigned long long>(event.start),
            static_cast<unsigned long long>(event.end), event.stream, static_cast<unsigned long long>(event.node), static_cast<unsigned long long>(event.bytes));
  }
}

template <class Function>
bool find(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library, name));
  return function != nullptr;
}

/// nullptr, or why there is no CUPTI to use.
const char* open_cupti(Cupti& cupti) {
  void* library = dlopen("libcupti.so.13", RTLD_NOW);
  const char* elsewhere = getenv("LOWRANK_CUPTI");
  if (library == nullptr && elsewhere != nullptr && *elsewhere != '\0') library = dlopen(elsewhere, RTLD_NOW);
  if (library == nullptr) return dlerror();
  const bool complete = find(library, "cuptiActivityRegisterCallbacks", cupti.register_callbacks) && find(library, "cuptiActivityEnable", cupti.enable) &&
                        find(library, "cuptiActivityGetNextRecord", cupti.next_record) && find(library, "cuptiActivityGetNumDroppedRecords", cupti.dropped_records) &&
                        find(library, "cuptiActivityFlushAll", cupti.flush_all) && find(library, "cuptiGetResultString", cupti.result_string);
  return complete ? nullptr : "it lacks functions of CUPTI 13";
}

/// nullptr, or why nothing will be recorded. Callbacks come first: a kind that is enabled may ask for a buffer at once.
const char* begin(const Cupti& cupti) {
  CUptiResult result = cupti.register_callbacks(give_buffer, take_buffer);
  for (const CUpti_ActivityKind kind : {CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL, CUPTI_ACTIVITY_KIND_MEMCPY, CUPTI_ACTIVITY_KIND_MEMSET}) {
    if (result == CUPTI_SUCCESS) result = cupti.enable(kind);
  }
  if (result == CUPTI_SUCCESS) return nullptr;
  const char* why = "an unknown error";
  cupti.result_string(result, &why);
  return why;
}

}  // namespace

/// CUDA calls this when it initialises itself in a process. 1: fine, also where nothing will be recorded, for the program is to run anyway.
extern "C" __attribute__((visibility("default"))) int InitializeInjection() {
  const char* file = getenv("LOWRANK_TIMELINE");
  if (file == nullptr) return 1;
  timeline().file = file;
  Cupti& cupti = timeline().cupti;
  const char* why = open_cupti(cupti);
  if (why == nullptr) why = begin(cupti);
  if (why == nullptr) std::atexit(write_events);
  else write_fault(why);
  return 1;
}
