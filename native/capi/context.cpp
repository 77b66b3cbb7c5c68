#include "context.h"

#include <stdio.h>
#include <string.h>

#include <memory>

namespace lowrank::capi {

namespace {

constexpr const char* kNames[] = {"OK",         "ERR_SHAPE",  "ERR_DTYPE",       "ERR_DEVICE",    "ERR_ARGUMENT",
                                  "ERR_RANGE",  "ERR_MEMORY", "ERR_UNSUPPORTED", "ERR_NONFINITE", "ERR_INTERNAL"};
constexpr int kStatuses = sizeof kNames / sizeof kNames[0];

struct LastError {
  lowrank_status status;
  char text[sizeof Failure::text];
};
thread_local LastError last_error;

lowrank_status status_of(const char* code) {
  for (int i = 1; i < kStatuses; ++i)
    if (strcmp(code, kNames[i]) == 0) return static_cast<lowrank_status>(i);
  return LOWRANK_ERR_INTERNAL;
}

// nullptr: the options will do; otherwise what is wrong with them.
const char* fault_of(const lowrank_options& options) {
  if (options.abi != LOWRANK_ABI) return "the caller must be compiled against this library's lowrank.h (options.abi must be LOWRANK_ABI)";
  if (kind_of(options.device_type) == nullptr) return "device_type must be LOWRANK_CPU, LOWRANK_CUDA or LOWRANK_EMULATOR";
  if (options.device_index < 0) return "device_index must not be negative";
  if (options.threads < 0 || options.threads > 1024) return "threads must be 0 (as many as there are processors) to 1024";
  if (options.matmul_precision != LOWRANK_HIGHEST && options.matmul_precision != LOWRANK_MEDIUM) return "there is no such matmul_precision";
  if (options.reserved != 0) return "reserved must be 0";
  if (options.stream != nullptr && options.device_type == LOWRANK_CPU) return "a stream must be NULL on the CPU";
  return nullptr;
}

const Backend* backend_of(int32_t device_type, Failure& failure) {
  char why[512] = "";
  const char* kind = kind_of(device_type);
  const Backend* backend = find_backend(kind, why, sizeof why);
  if (backend != nullptr && backend->probe(why, sizeof why) > 0) return backend;
  failure.set("ERR_DEVICE", "%s: %s", kind, why);
  return nullptr;
}

void open(const lowrank_options& options, lowrank_context** out, Failure& failure) {
  if (const char* fault = fault_of(options)) return failure.set("ERR_ARGUMENT", "lowrank_open: %s", fault);
  const Backend* backend = backend_of(options.device_type, failure);
  if (backend == nullptr) return;
  auto context = std::make_unique<lowrank_context>();
  DeviceOptions device_options{};
  device_options.index = options.device_index;
  device_options.threads = options.threads;
  device_options.matmul_precision = static_cast<MatmulPrecision>(options.matmul_precision);
  device_options.stream = options.stream;
  device_options.guest = 1;
  void* device = backend->open(&device_options, &failure);
  if (device == nullptr && !failure.happened()) failure.set("ERR_MEMORY", "%s: no memory to open the device", backend->kind);
  if (device == nullptr) return;
  context->backend = backend;
  context->device = device;
  context->device_type = options.device_type;
  DeviceInfo facts{};
  backend->info(device, &facts);
  context->device_index = facts.ordinal;
  *out = context.release();
}

}  // namespace

const char* kind_of(int32_t device_type) {
  switch (device_type) {
    case LOWRANK_CPU: return "cpu";
    case LOWRANK_CUDA: return "cuda";
    case LOWRANK_EMULATOR: return "cusim";
    default: return nullptr;
  }
}

lowrank_status keep(const Failure& failure) {
  last_error.status = status_of(failure.code);
  memcpy(last_error.text, failure.text, sizeof last_error.text);
  return last_error.status;
}

}  // namespace lowrank::capi

using lowrank::Failure;
using lowrank::capi::guarded;
using lowrank::capi::in_context;

const char* lowrank_version(void) { return LOWRANK_VERSION; }
uint32_t lowrank_abi(void) { return LOWRANK_ABI; }
const char* lowrank_last_error(void) { return lowrank::capi::last_error.text; }
lowrank_status lowrank_last_status(void) { return lowrank::capi::last_error.status; }

const char* lowrank_status_name(lowrank_status status) {
  const int i = static_cast<int>(status);
  return i >= 0 && i < lowrank::capi::kStatuses ? lowrank::capi::kNames[i] : "?";
}

int32_t lowrank_device_count(int32_t device_type) {
  int32_t count = 0;
  guarded("lowrank_device_count", [&](Failure& failure) {
    if (lowrank::capi::kind_of(device_type) == nullptr) return failure.set("ERR_ARGUMENT", "lowrank_device_count: there is no device type %d", device_type);
    char why[512] = "";
    const lowrank::Backend* backend = lowrank::capi::backend_of(device_type, failure);
    if (backend != nullptr) count = backend->probe(why, sizeof why);
  });
  return count;
}

lowrank_status lowrank_open(const lowrank_options* options, lowrank_context** context) {
  if (context != nullptr) *context = nullptr;
  return guarded("lowrank_open", [&](Failure& failure) {
    if (options == nullptr || context == nullptr) return failure.set("ERR_ARGUMENT", "lowrank_open: options and context must be given (found NULL)");
    lowrank::capi::open(*options, context, failure);
  });
}

void lowrank_close(lowrank_context* context) {
  if (context == nullptr) return;
  guarded("lowrank_close", [&](Failure&) {
    context->backend->close(context->device);
    delete context;
  });
}

lowrank_status lowrank_get_info(lowrank_context* context, lowrank_info* info) {
  return in_context("lowrank_get_info", context, [&](Failure& failure) {
    if (info == nullptr) return failure.set("ERR_ARGUMENT", "lowrank_get_info: info must be given (found NULL)");
    lowrank::DeviceInfo facts{};
    context->backend->info(context->device, &facts);
    *info = {};
    snprintf(info->name, sizeof info->name, "%s", facts.name);
    snprintf(info->kernels, sizeof info->kernels, "%s", facts.kernels);
    info->memory = facts.memory;
    info->threads = facts.threads;
    info->device_index = facts.ordinal;
    info->matmul_precision = static_cast<int32_t>(facts.matmul_precision);
    snprintf(info->products, sizeof info->products, "%s", facts.products);
  });
}

lowrank_status lowrank_synchronize(lowrank_context* context) {
  return in_context("lowrank_synchronize", context, [&](Failure& failure) { context->backend->synchronize(context->device, &failure); });
}
