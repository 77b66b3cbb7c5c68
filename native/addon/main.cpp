#include "environment.h"

namespace {

Napi::Object init(Napi::Env env, Napi::Object exports) {
  using namespace lowrank::addon;
  auto* environment = new Environment(env);
  // Runs before the channel's own hook (last in, first out), so that no stream calls into a channel that is gone.
  env.AddCleanupHook([](Environment* e) {
    e->stop();
    delete e;
  }, environment);
  add_devices(env, exports, *environment);
  add_memory(env, exports, *environment);
  add_dlpack(env, exports, *environment);
  add_weights(env, exports, *environment);
  add_ops(env, exports, *environment);
  return exports;
}

}  // namespace

NODE_API_MODULE(lowrank, init)
