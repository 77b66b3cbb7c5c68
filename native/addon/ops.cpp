// Every line of list.def as a function: decode, check, enqueue.
#include <condition_variable>
#include <mutex>
#include <vector>

#include "../ops/all.h"
#include "../ops/visitors.h"
#include "decode.h"

namespace lowrank::addon {

namespace {

template <class Contract>
void run(Device& device, Op id, const char* name, Contract& op, bool check_nan, Failure& failure) {
  Trace& trace = device.trace();
  const int64_t begin = trace.on() ? Trace::now() : 0;
  device.backend().launch(device.state(), static_cast<int32_t>(id), &op, &failure);
  if (trace.on()) {
    const int64_t end = Trace::now();
    Describe shapes;
    op.visit(shapes);
    trace.op(name, shapes.text().c_str(), begin, end);
  }
  if (!check_nan || failure.happened()) return;
  std::vector<char> copy;
  FindNonFinite search([&](const Tensor& t) -> const void* {
    if (device.backend().host_memory != 0) return t.data;
    copy.resize(static_cast<size_t>(((t.rows() - 1) * t.pitch + t.cols()) * size_of(t.dtype)));
    device.backend().download(device.state(), copy.data(), t.data, static_cast<int64_t>(copy.size()), &failure);
    return failure.happened() ? nullptr : copy.data();
  });
  op.visit(search);
  if (search.name() == nullptr || failure.happened()) return;
  failure.set("ERR_NONFINITE", "%s: %s is not finite at element %lld (LOWRANK_CHECK=nan)", name, search.name(),
              static_cast<long long>(search.element()));
}

// LOWRANK_SYNC=1: waits for the op and throws at the caller's line.
void wait(Napi::Env env, Device& device) {
  Stream& stream = device.stream();
  std::mutex mutex;
  std::condition_variable done;
  bool finished = false;
  StreamFailure failed;
  stream.enqueue("sync", Stream::When::always, [&](Failure& failure) {
    device.backend().synchronize(device.state(), &failure);
    const std::lock_guard lock(mutex);
    failed = stream.take_failure();
    if (!failed.failure.happened()) failed.failure = failure;
    failure = {};
    finished = true;
    done.notify_one();
  });
  std::unique_lock lock(mutex);
  done.wait(lock, [&] { return finished; });
  if (failed.failure.happened()) fail(env, failed.failure.code, failed.failure.text);
}

using PagedWeights = std::vector<std::shared_ptr<PagedWeight>>;

// What the op reads of weights that are brought for it.
template <class Contract>
std::vector<Extent> extents_of(Device& device, Contract& op, const PagedWeights& paged) {
  if (device.backend().host_memory == 0) {
    std::vector<Extent> extents;
    for (const auto& weight : paged)
      if (weight != nullptr) extents.push_back(WeightSlots::extent_of(weight));
    return extents;
  }
  WeightBytes reads;
  op.visit(reads);
  return reads.count() > 0 ? device.page_cache().extents_of(reads) : std::vector<Extent>();
}

// Around an op: its paged weights where they are now.
template <class Contract, class Body>
void with_weights(Device& device, Contract& op, const PagedWeights& paged, Failure& failure, const Body& body) {
  std::vector<Weight> placed(paged.size());
  std::vector<const Weight*> replaced(paged.size());
  for (size_t i = 0; i < paged.size(); ++i) {
    if (paged[i] == nullptr) continue;
    placed[i] = device.weight_slots().begin_use(*paged[i], failure);
    replaced[i] = &placed[i];
  }
  if (failure.happened()) return;
  if (!paged.empty()) op.visit(ReplaceWeights(replaced.data()));
  body();
  for (const auto& weight : paged)
    if (weight != nullptr) device.weight_slots().end_use(*weight, failure);
}

template <class Contract>
Napi::Value call(const Napi::CallbackInfo& info, Op id, const char* name) {
  Contract op{};
  Decode decode(info, name);
  op.visit(decode);
  Device& device = decode.finish();
  if (const char* misfit = op.misfit()) {
    Describe shapes;
    op.visit(shapes);
    decode.fail_call("ERR_SHAPE", std::string(misfit) + " (" + shapes.text() + ")");
  }
  Environment& environment = environment_of(info);
  PagedWeights paged = decode.paged();
  const int64_t ticket = device.read_ahead().expect(extents_of(device, op, paged));
  device.stream().enqueue(name, Stream::When::healthy,
                          [&device, id, name, op, ticket, paged = std::move(paged), check = environment.check_nan](Failure& failure) mutable {
                            if (ticket != 0) device.read_ahead().reach(ticket, failure);
                            if (failure.happened()) return;
                            with_weights(device, op, paged, failure, [&] { run(device, id, name, op, check, failure); });
                          });
  if (environment.sync) wait(info.Env(), device);
  return info.Env().Undefined();
}

}  // namespace

void add_ops(Napi::Env env, Napi::Object exports, Environment& environment) {
  Napi::Object ops = Napi::Object::New(env);
#define OP(stem, Contract) \
  add_method(ops, #stem, [](const Napi::CallbackInfo& info) { return call<Contract>(info, Op::stem, #stem); }, environment);
#include "../ops/list.def"
#undef OP
  exports.Set("ops", ops);
}

}  // namespace lowrank::addon
