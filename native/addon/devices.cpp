// open, close, probe, info, fence, stats.
#include "environment.h"

namespace lowrank::addon {

namespace {

Napi::Value probe(const Napi::CallbackInfo& info) {
  char why[512] = "";
  const Backend* backend = find_backend(text_argument(info, 0).c_str(), why, sizeof why);
  const int count = backend != nullptr ? backend->probe(why, sizeof why) : 0;
  Napi::Object result = Napi::Object::New(info.Env());
  result.Set("count", count);
  result.Set("why", std::string(why));
  return result;
}

MatmulPrecision precision_argument(const Napi::CallbackInfo& info, size_t i) {
  const int32_t precision = index_argument(info, i);
  if (precision > static_cast<int32_t>(MatmulPrecision::medium)) fail(info.Env(), "ERR_ARGUMENT", "open: no such matmul precision");
  return static_cast<MatmulPrecision>(precision);
}

Napi::Value open(const Napi::CallbackInfo& info) {
  Failure failure{};
  const double weight_memory = number_argument(info, 4);
  if (!(weight_memory >= -1 && weight_memory <= 9007199254740992.0)) fail(info.Env(), "ERR_ARGUMENT", "open: memory for weights must be a number of bytes");
  Environment& environment = environment_of(info);
  DeviceOptions options{};
  options.index = index_argument(info, 1);
  options.threads = index_argument(info, 2);
  options.matmul_precision = precision_argument(info, 3);
  options.weight_memory = static_cast<int64_t>(weight_memory);
  options.graphs = number_argument(info, 5) != 0 && !environment.check_nan && !environment.sync;  // these wait for each op
  const int32_t id = environment.open_device(text_argument(info, 0).c_str(), options, failure);
  if (id < 0) fail(info.Env(), failure.code, failure.text);
  return Napi::Number::New(info.Env(), id);
}

Napi::Value close(const Napi::CallbackInfo& info) {
  environment_of(info).close_device(index_argument(info, 0));
  return info.Env().Undefined();
}

Napi::Value describe(const Napi::CallbackInfo& info) {
  Device& device = device_argument(info, 0);
  const DeviceInfo facts = device.info();
  Napi::Object result = Napi::Object::New(info.Env());
  result.Set("kind", device.backend().kind);
  result.Set("name", facts.name);
  result.Set("kernels", facts.kernels);
  result.Set("memory", static_cast<double>(facts.memory));
  result.Set("freeMemory", static_cast<double>(facts.free_memory));
  result.Set("weightMemory", static_cast<double>(device.weight_slots().bytes()));
  result.Set("products", facts.products);
  result.Set("threads", facts.threads);
  result.Set("matmulPrecision", static_cast<double>(facts.matmul_precision));
  result.Set("activations", static_cast<double>(device.backend().activations));
  return result;
}

Napi::Value fence(const Napi::CallbackInfo& info) {
  Device& device = device_argument(info, 0);
  return environment_of(info).settle_on_stream(info.Env(), device, "fence", [&device](Failure& failure) {
    device.backend().synchronize(device.state(), &failure);
  });
}

Napi::Object graphs(Napi::Env env, Device& device) {
  GraphCounts counts{};
  device.backend().count_graphs(device.state(), &counts);
  Napi::Object result = Napi::Object::New(env);
  result.Set("ops", static_cast<double>(counts.ops));
  result.Set("replayed", static_cast<double>(counts.replayed));
  result.Set("captured", static_cast<double>(counts.captured));
  result.Set("updated", static_cast<double>(counts.updated));
  result.Set("refused", static_cast<double>(counts.refused));
  result.Set("why", counts.why);
  return result;
}

Napi::Value stats(const Napi::CallbackInfo& info) {
  Device& device = device_argument(info, 0);
  device.loans().collect();
  Napi::Object result = Napi::Object::New(info.Env());
  result.Set("tensors", static_cast<double>(environment_of(info).slots().live_on(index_argument(info, 0))));
  result.Set("liveBytes", static_cast<double>(device.pool().live_bytes()));
  result.Set("peakBytes", static_cast<double>(device.pool().peak_bytes()));
  result.Set("reservedBytes", static_cast<double>(device.pool().reserved_bytes()));
  result.Set("ops", static_cast<double>(device.stream().queued()));
  const auto kernel_bytes = device.backend().kernel_bytes;
  result.Set("kernelBytes", static_cast<double>(kernel_bytes != nullptr ? kernel_bytes(device.state()) : 0));
  result.Set("broughtBytes", static_cast<double>(device.weight_slots().brought_bytes()));
  if (device.backend().count_graphs != nullptr) result.Set("graphs", graphs(info.Env(), device));
  return result;
}

// weightRoom(device): bytes in which frozen weights take turns where they don't all fit; 0: nothing keeps them from being there.
Napi::Value weight_room(const Napi::CallbackInfo& info) {
  Device& device = device_argument(info, 0);
  const int64_t room = device.backend().host_memory != 0 ? device.page_cache().room() : device.weight_slots().bytes();
  return Napi::Number::New(info.Env(), static_cast<double>(room));
}

// chooseWeightMemory(device, bytes): for weights that are made from now on. Those that take turns already stay where they do.
Napi::Value choose_weight_memory(const Napi::CallbackInfo& info) {
  WeightSlots& slots = device_argument(info, 0).weight_slots();
  if (!slots.opened()) slots.choose(static_cast<int64_t>(number_argument(info, 1)));
  return info.Env().Undefined();
}

Napi::Value reset_peak(const Napi::CallbackInfo& info) {
  device_argument(info, 0).pool().reset_peak();
  return info.Env().Undefined();
}

}  // namespace

void add_devices(Napi::Env, Napi::Object exports, Environment& environment) {
  add_method(exports, "probe", probe, environment);
  add_method(exports, "open", open, environment);
  add_method(exports, "close", close, environment);
  add_method(exports, "info", describe, environment);
  add_method(exports, "fence", fence, environment);
  add_method(exports, "stats", stats, environment);
  add_method(exports, "weightRoom", weight_room, environment);
  add_method(exports, "chooseWeightMemory", choose_weight_memory, environment);
  add_method(exports, "resetPeak", reset_peak, environment);
}

}  // namespace lowrank::addon
