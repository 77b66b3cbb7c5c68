#include "backend_calls.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../native/cpu/backend.h"

namespace lowrank::bench {

namespace {

const Backend* backend() { return cpu::backend(); }

uint16_t bf16_of(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return static_cast<uint16_t>(bits >> 16);
}

}  // namespace

void Device::stop(const char* why) {
  fprintf(stderr, "kernels: %s\n", why);
  exit(1);
}

Device::Device(MatmulPrecision precision) {
  Failure failure{};
  const DeviceOptions options{0, 0, precision};
  device_ = backend()->open(&options, &failure);
  if (device_ == nullptr) stop(failure.text);
}

Device::~Device() {
  for (const auto& [memory, bytes] : memory_) backend()->deallocate(device_, memory, bytes);
  backend()->close(device_);
}

DeviceInfo Device::info() const {
  DeviceInfo info{};
  backend()->info(device_, &info);
  return info;
}

Tensor Device::empty(std::initializer_list<int64_t> dims, DType dtype) {
  Tensor tensor{nullptr, dtype, static_cast<int32_t>(dims.size()), {}};
  int i = 0;
  for (const int64_t dim : dims) tensor.dims[i++] = dim;
  tensor.data = backend()->allocate(device_, tensor.bytes());
  if (tensor.data == nullptr) stop("there must be memory for the operands");
  memory_.emplace_back(tensor.data, tensor.bytes());
  return tensor;
}

Tensor Device::noise(std::initializer_list<int64_t> dims, uint32_t seed, DType dtype) {
  const Tensor tensor = empty(dims, dtype);
  uint32_t state = seed;
  for (int64_t i = 0; i < tensor.count(); ++i) {
    state = state * 1664525u + 1013904223u;
    const float value = (static_cast<float>(state >> 8) / static_cast<float>(1 << 24) - 0.5f) / 4.0f;
    if (dtype == DType::bf16) tensor.as<uint16_t>()[i] = bf16_of(value);
    else tensor.f32()[i] = value;
  }
  return tensor;
}

void Device::launch_checked(Op op, const void* contract) {
  Failure failure{};
  backend()->launch(device_, static_cast<int32_t>(op), contract, &failure);
  if (failure.happened()) stop(failure.text);
}

}  // namespace lowrank::bench
