#include "device.h"

#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <system_error>

namespace lowrank {

namespace {

int64_t weight_memory_of(const DeviceOptions& options) {
  const char* chosen = getenv("LOWRANK_WEIGHT_MEMORY");
  return options.weight_memory != 0 || chosen == nullptr ? std::max<int64_t>(0, options.weight_memory) : std::max<int64_t>(0, atoll(chosen));
}

// LOWRANK_GRAPHS=0 switches them off. A trace tells of each op when it was launched, so none may be kept back.
bool graphs_of(const DeviceOptions& options) {
  const char* chosen = getenv("LOWRANK_GRAPHS");
  return options.graphs != 0 && (chosen == nullptr || strcmp(chosen, "0") != 0) && getenv("LOWRANK_TRACE") == nullptr;
}

}  // namespace

Device::Device(const Backend* backend, void* state, const DeviceOptions& options)
    : backend_(backend),
      state_(state),
      ordinal_(info().ordinal),
      pool_(backend, state),
      staging_(backend, state, Lane::work),
      page_cache_(trace_, weight_memory_of(options)),
      weight_slots_(backend, state, trace_, weight_memory_of(options)),
      read_ahead_(backend->host_memory != 0 ? static_cast<Destination&>(page_cache_) : weight_slots_, trace_) {}

std::unique_ptr<Device> Device::open(const char* kind, const DeviceOptions& options, Failure& failure) {
  char why[512] = "";
  const Backend* backend = find_backend(kind, why, sizeof why);
  if (backend == nullptr || backend->probe(why, sizeof why) == 0) {
    failure.set("ERR_DEVICE", "%s: %s", kind, why);
    return nullptr;
  }
  DeviceOptions chosen = options;
  chosen.graphs = graphs_of(options) ? 1 : 0;
  void* state = backend->open(&chosen, &failure);
  if (state == nullptr) {
    if (!failure.happened()) failure.set("ERR_MEMORY", "%s: no memory to open the device", kind);
    return nullptr;
  }
  try {
    return std::unique_ptr<Device>(new Device(backend, state, options));
  } catch (const std::system_error& error) {
    backend->close(state);
    failure.set("ERR_DEVICE", "%s: the stream's thread can't be started (%s)", kind, error.what());
    return nullptr;
  }
}

Device::~Device() {
  stream_.stop();
  read_ahead_.stop();
  weight_slots_.clear();
  staging_.clear();
  pool_.clear();
  backend_->close(state_);
}

DeviceInfo Device::info() const {
  DeviceInfo info{};
  backend_->info(state_, &info);
  return info;
}

}  // namespace lowrank
