// Everything the addon holds, one per Node environment (the main thread, each worker thread): no state is shared.
#pragma once
#include <napi.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "slots.h"

namespace lowrank::addon {

// Throws a JavaScript Error with `code`; src/native.ts makes a LowrankError of it.
[[noreturn]] void fail(Napi::Env env, const char* code, const std::string& text);
Napi::Error make_error(Napi::Env env, const char* code, const std::string& text);

class Environment {
 public:
  // The outcome of a promise, made on a stream thread, delivered on the JS thread.
  struct Settlement {
    Napi::Promise::Deferred deferred;
    StreamFailure failed;
    std::shared_ptr<std::vector<char>> bytes;  // what a download brings
  };

  explicit Environment(Napi::Env env);
  Environment(const Environment&) = delete;
  Environment& operator=(const Environment&) = delete;

  Slots& slots() { return slots_; }
  int32_t open_device(const char* kind, const DeviceOptions& options, Failure& failure);
  void close_device(int32_t id);
  Device* device(int32_t id);
  std::shared_ptr<Device> share_device(int32_t id);  // an open one, for whoever may outlive it
  // Queues work whose promise settles when the stream gets there. A failure of the stream so far rejects it.
  Napi::Promise settle_on_stream(Napi::Env env, Device& device, const char* op, Stream::Work work,
                                 std::shared_ptr<std::vector<char>> bytes = nullptr);
  void stop();

  bool sync = false;       // LOWRANK_SYNC
  bool check_nan = false;  // LOWRANK_CHECK=nan

 private:
  static void deliver(Napi::Env env, Napi::Function, Environment* self, Settlement* settlement);
  using Channel = Napi::TypedThreadSafeFunction<Environment, Settlement, deliver>;

  Slots slots_;
  std::vector<std::shared_ptr<Device>> devices_;
  Channel channel_;
  int64_t pending_ = 0;  // promises on the way; while there are some, Node stays alive
};

void add_memory(Napi::Env env, Napi::Object exports, Environment& environment);
void add_weights(Napi::Env env, Napi::Object exports, Environment& environment);
void add_devices(Napi::Env env, Napi::Object exports, Environment& environment);
void add_dlpack(Napi::Env env, Napi::Object exports, Environment& environment);
void add_ops(Napi::Env env, Napi::Object exports, Environment& environment);

// One function of the module; `environment` is its data.
using Method = Napi::Value (*)(const Napi::CallbackInfo& info);
void add_method(Napi::Object exports, const char* name, Method method, Environment& environment);
Environment& environment_of(const Napi::CallbackInfo& info);

// Arguments. None of these runs JavaScript (a valueOf, a toString), so what one found can't be closed by the next.
double number_argument(const Napi::CallbackInfo& info, size_t i);
int32_t index_argument(const Napi::CallbackInfo& info, size_t i);  // a whole number in [0, 2^31)
std::string text_argument(const Napi::CallbackInfo& info, size_t i);
Device& device_argument(const Napi::CallbackInfo& info, size_t i);
Object& object_argument(const Napi::CallbackInfo& info, size_t i, Object::Is is);

}  // namespace lowrank::addon
