#include "device.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

namespace lowrank::bench {

namespace {

uint16_t bf16_of(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return static_cast<uint16_t>(bits >> 16);
}

float bf16_value(uint16_t bits) {
  const uint32_t wide = static_cast<uint32_t>(bits) << 16;
  float value;
  memcpy(&value, &wide, sizeof value);
  return value;
}

void must(lowrank_status status) {
  if (status != LOWRANK_OK) stop(lowrank_last_error());
}

}  // namespace

void stop(const char* why) {
  fprintf(stderr, "%s\n", why);
  exit(1);
}

float at(const lowrank_tensor& t, int64_t i) { return t.dtype == LOWRANK_BF16 ? bf16_value(static_cast<const uint16_t*>(t.data)[i]) : f32(t)[i]; }

lowrank_weight weight_over(const lowrank_tensor& matrix) {
  lowrank_weight w{};
  w.data[0] = matrix.data;
  w.out[0] = matrix.dims[0];
  w.in = matrix.dims[1];
  w.dtype = matrix.dtype;
  w.parts = 1;
  return w;
}

Device::Device(lowrank_matmul_precision precision, int32_t threads) {
  lowrank_options options{};
  options.abi = LOWRANK_ABI;
  options.device_type = LOWRANK_CPU;
  options.threads = threads;
  options.matmul_precision = precision;
  must(lowrank_open(&options, &context_));
}

Device::~Device() {
  for (const auto& [memory, bytes] : memory_) lowrank_release(context_, memory, bytes);
  lowrank_close(context_);
}

lowrank_info Device::info() const {
  lowrank_info info;
  must(lowrank_get_info(context_, &info));
  return info;
}

lowrank_tensor Device::empty(std::initializer_list<int64_t> dims, lowrank_dtype dtype) {
  lowrank_tensor tensor{};
  tensor.dtype = dtype;
  for (const int64_t dim : dims) tensor.dims[tensor.rank++] = dim;
  const int64_t bytes = count(tensor) * (dtype == LOWRANK_BF16 || dtype == LOWRANK_F16 ? 2 : 4);
  must(lowrank_allocate(context_, bytes, &tensor.data));
  memory_.emplace_back(tensor.data, bytes);
  return tensor;
}

lowrank_tensor Device::noise(std::initializer_list<int64_t> dims, uint32_t seed, lowrank_dtype dtype) {
  const lowrank_tensor tensor = empty(dims, dtype);
  uint32_t state = seed;
  for (int64_t i = 0; i < count(tensor); ++i) {
    state = state * 1664525u + 1013904223u;
    const float value = (static_cast<float>(state >> 8) / static_cast<float>(1 << 24) - 0.5f) / 4.0f;
    if (dtype == LOWRANK_BF16) static_cast<uint16_t*>(tensor.data)[i] = bf16_of(value);
    else f32(tensor)[i] = value;
  }
  return tensor;
}

}  // namespace lowrank::bench
