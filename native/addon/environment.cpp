#include "environment.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

namespace lowrank::addon {

Napi::Error make_error(Napi::Env env, const char* code, const std::string& text) {
  Napi::Error error = Napi::Error::New(env, text);
  error.Set("code", Napi::String::New(env, code));
  return error;
}

void fail(Napi::Env env, const char* code, const std::string& text) { throw make_error(env, code, text); }

Environment::Environment(Napi::Env env) : channel_(Channel::New(env, "lowrank", 0, 1, this)) {
  channel_.Unref(env);
  const char* check = getenv("LOWRANK_CHECK");
  const char* sync_text = getenv("LOWRANK_SYNC");
  sync = sync_text != nullptr && strcmp(sync_text, "1") == 0;
  check_nan = check != nullptr && strcmp(check, "nan") == 0;
}

int32_t Environment::open_device(const char* kind, const DeviceOptions& options, Failure& failure) {
  std::unique_ptr<Device> opened = Device::open(kind, options, failure);
  if (opened == nullptr) return -1;
  devices_.push_back(std::move(opened));
  return static_cast<int32_t>(devices_.size()) - 1;
}

void Environment::close_device(int32_t id) {
  Device* open = device(id);
  if (open == nullptr) return;
  open->stream().stop();
  slots_.release_device(id);
  open->loans().close();
  devices_[static_cast<size_t>(id)].reset();
}

std::shared_ptr<Device> Environment::share_device(int32_t id) { return devices_[static_cast<size_t>(id)]; }

Device* Environment::device(int32_t id) {
  return id >= 0 && static_cast<size_t>(id) < devices_.size() ? devices_[static_cast<size_t>(id)].get() : nullptr;
}

Napi::Promise Environment::settle_on_stream(Napi::Env env, Device& device, const char* op, Stream::Work work,
                                            std::shared_ptr<std::vector<char>> bytes) {
  auto settlement = std::make_unique<Settlement>(Settlement{Napi::Promise::Deferred::New(env), {}, std::move(bytes)});
  const Napi::Promise promise = settlement->deferred.Promise();
  if (pending_++ == 0) channel_.Ref(env);
  device.read_ahead().end_batch();
  device.stream().enqueue(op, Stream::When::healthy, std::move(work));
  device.stream().enqueue(op, Stream::When::always, [this, &stream = device.stream(), settlement = settlement.release()](Failure&) {
    settlement->failed = stream.take_failure();
    if (channel_.BlockingCall(settlement) != napi_ok) delete settlement;
  });
  return promise;
}

void Environment::deliver(Napi::Env env, Napi::Function, Environment* self, Settlement* settlement) {
  const std::unique_ptr<Settlement> owned(settlement);
  if (env == nullptr) return;  // the environment is going away
  if (--self->pending_ == 0) self->channel_.Unref(env);
  const Failure& failure = owned->failed.failure;
  if (failure.happened()) {
    owned->deferred.Reject(make_error(env, failure.code, failure.text).Value());
  } else if (owned->bytes != nullptr) {
    Napi::ArrayBuffer copy = Napi::ArrayBuffer::New(env, owned->bytes->size());
    memcpy(copy.Data(), owned->bytes->data(), owned->bytes->size());
    owned->deferred.Resolve(copy);
  } else {
    owned->deferred.Resolve(env.Undefined());
  }
}

void Environment::stop() {
  for (const auto& device : devices_)
    if (device != nullptr) device->stream().stop();
  for (size_t id = 0; id < devices_.size(); ++id) slots_.release_device(static_cast<int32_t>(id));
  for (const auto& device : devices_)
    if (device != nullptr) device->loans().close();
  devices_.clear();
  channel_.Abort();
}

void add_method(Napi::Object exports, const char* name, Method method, Environment& environment) {
  exports.Set(name, Napi::Function::New(exports.Env(), method, name, &environment));
}

Environment& environment_of(const Napi::CallbackInfo& info) { return *static_cast<Environment*>(info.Data()); }

double number_argument(const Napi::CallbackInfo& info, size_t i) {
  if (!info[i].IsNumber()) fail(info.Env(), "ERR_ARGUMENT", "argument " + std::to_string(i + 1) + " must be a number");
  return info[i].As<Napi::Number>().DoubleValue();
}

int32_t index_argument(const Napi::CallbackInfo& info, size_t i) {
  const double index = number_argument(info, i);
  if (index >= 0 && index <= INT32_MAX && index == floor(index)) return static_cast<int32_t>(index);
  fail(info.Env(), "ERR_ARGUMENT", "argument " + std::to_string(i + 1) + " must be a whole number, not negative");
}

std::string text_argument(const Napi::CallbackInfo& info, size_t i) {
  if (!info[i].IsString()) fail(info.Env(), "ERR_ARGUMENT", "argument " + std::to_string(i + 1) + " must be a string");
  std::string text = info[i].As<Napi::String>().Utf8Value();
  // C functions would read a path up to there, which is another file.
  const bool cut = text.find('\0') != std::string::npos;
  if (cut) fail(info.Env(), "ERR_ARGUMENT", "argument " + std::to_string(i + 1) + " must not contain a zero");
  return text;
}

Device& device_argument(const Napi::CallbackInfo& info, size_t i) {
  Device* device = environment_of(info).device(index_argument(info, i));
  if (device == nullptr) fail(info.Env(), "ERR_DISPOSED", "the device is closed");
  return *device;
}

Object& object_argument(const Napi::CallbackInfo& info, size_t i, Object::Is is) {
  Object* object = environment_of(info).slots().find(number_argument(info, i));
  if (object == nullptr) fail(info.Env(), "ERR_DISPOSED", "argument " + std::to_string(i + 1) + " was used after its release");
  if (object->is != is) fail(info.Env(), "ERR_ARGUMENT", "argument " + std::to_string(i + 1) + " is a handle of another sort");
  return *object;
}

}  // namespace lowrank::addon
