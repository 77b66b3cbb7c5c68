#include "device.h"

#include <system_error>

namespace lowrank {

std::unique_ptr<Device> Device::open(const char* kind, const DeviceOptions& options, Failure& failure) {
  char why[512] = "";
  const Backend* backend = find_backend(kind, why, sizeof why);
  if (backend == nullptr || backend->probe(why, sizeof why) == 0) {
    failure.set("ERR_DEVICE", "%s: %s", kind, why);
    return nullptr;
  }
  void* state = backend->open(&options, &failure);
  if (state == nullptr) {
    if (!failure.happened()) failure.set("ERR_MEMORY", "%s: no memory to open the device", kind);
    return nullptr;
  }
  try {
    return std::unique_ptr<Device>(new Device(backend, state, options.index));
  } catch (const std::system_error& error) {
    backend->close(state);
    failure.set("ERR_DEVICE", "%s: the stream's thread can't be started (%s)", kind, error.what());
    return nullptr;
  }
}

Device::~Device() {
  stream_.stop();
  pool_.clear();
  backend_->close(state_);
}

DeviceInfo Device::info() const {
  DeviceInfo info{};
  backend_->info(state_, &info);
  return info;
}

}  // namespace lowrank
