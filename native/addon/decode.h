// Numbers from JavaScript into a contract: handles become tensors, in call order, checked on the way.
#pragma once
#include <math.h>

#include "../ops/contract.h"
#include "tensors.h"

namespace lowrank::addon {

class Decode {
 public:
  Decode(const Napi::CallbackInfo& info, const char* op) : info_(info), environment_(environment_of(info)), op_(op) {}

  void out(const char* name, Tensor& t, Kind kind) { t = tensor(name, kind, Is::required, Access::write); }
  void in(const char* name, Tensor& t, Kind kind) { t = tensor(name, kind, Is::required, Access::read); }
  void inout(const char* name, Tensor& t, Kind kind) { t = tensor(name, kind, Is::required, Access::write); }
  void optional(const char* name, Tensor& t, Kind kind) { t = tensor(name, kind, Is::optional, Access::read); }
  void optional_out(const char* name, Tensor& t, Kind kind) { t = tensor(name, kind, Is::optional, Access::write); }
  void optional_inout(const char* name, Tensor& t, Kind kind) { t = tensor(name, kind, Is::optional, Access::write); }
  void weight(const char* name, Weight& w) {
    const Object& object = find(name, next(name), Object::Is::weight);
    w = object.weight;
    paged_.push_back(object.paged);
    any_paged_ |= object.paged != nullptr;
  }
  void value(const char* name, float& v) { v = static_cast<float>(next(name)); }
  // Up to 2^53: sums of a few can't overflow.
  void value(const char* name, int64_t& v) { v = whole(name, -9007199254740992.0, 9007199254740992.0); }
  void value(const char* name, uint32_t& v) { v = static_cast<uint32_t>(whole(name, 0, 4294967295.0)); }

  // After the last operand: the device they all live on.
  Device& finish() {
    if (next_ != info_.Length()) {
      fail_call("ERR_ARGUMENT", "takes " + std::to_string(next_) + " arguments (found " + std::to_string(info_.Length()) + ")");
    }
    return *environment_.device(device_);
  }
  // By weight operand: what must be brought; nullptr: nothing. Empty: no operand must.
  std::vector<std::shared_ptr<PagedWeight>> paged() { return any_paged_ ? std::move(paged_) : std::vector<std::shared_ptr<PagedWeight>>(); }
  [[noreturn]] void fail_call(const char* code, const std::string& text) const {
    fail(info_.Env(), code, std::string(op_) + ": " + text);
  }

 private:
  enum class Is { required, optional };
  enum class Access { read, write };

  double next(const char* name) {
    if (!info_[next_].IsNumber()) {
      fail_call("ERR_ARGUMENT", std::string(name) + " must be given as a number (argument " + std::to_string(next_ + 1) + ")");
    }
    return info_[next_++].As<Napi::Number>().DoubleValue();
  }
  int64_t whole(const char* name, double least, double most) {
    const double value = next(name);
    if (value >= least && value <= most && value == floor(value)) return static_cast<int64_t>(value);
    fail_call("ERR_ARGUMENT", std::string(name) + " must be a whole number " + (least < 0 ? "of at most 2^53" : "in [0, 2^32)"));
  }
  const Object& find(const char* name, double handle, Object::Is is) {
    const Object* object = environment_.slots().find(handle);
    if (object == nullptr) fail_call("ERR_DISPOSED", std::string(name) + " was used after its release");
    if (object->is != is) {
      fail_call("ERR_ARGUMENT", std::string(name) + " must be a " + (is == Object::Is::weight ? "weight" : "tensor"));
    }
    if (device_ >= 0 && object->device != device_) {
      fail_call("ERR_DEVICE", std::string(name) + " must be on the device of the other operands");
    }
    device_ = object->device;
    return *object;
  }
  Tensor tensor(const char* name, Kind kind, Is is, Access access) {
    const double handle = next(name);
    if (handle == 0 && is == Is::optional) return Tensor{nullptr, DType::f32, -1, {}, 0};
    const Object& object = find(name, handle, Object::Is::tensor);
    const DType dtype = object.tensor.dtype;
    const char* wanted = refuse(kind, dtype, environment_.device(device_)->backend().activations);
    if (wanted != nullptr) fail_call("ERR_DTYPE", std::string(name) + " must be " + wanted + " (found " + name_of(dtype) + ")");
    if (!takes_pitch(kind) && !object.tensor.contiguous()) {
      fail_call("ERR_SHAPE", std::string(name) + " must have no spare columns (rows of " + std::to_string(object.tensor.cols()) + " lie " +
                                 std::to_string(object.tensor.pitch) + " apart)");
    }
    if (access == Access::write && object.read_only) {
      fail_call("ERR_ARGUMENT", std::string(name) + " is written, so it must not lie in a mapped file");
    }
    return object.stored == nullptr ? object.tensor : brought(object, kind);
  }
  Tensor brought(const Object& object, Kind kind) {
    Device& device = *environment_.device(device_);
    const Tensor tensor = object.stored->on_device(device, object.tensor, takes_pitch(kind));
    if (tensor.data == nullptr) fail_call("ERR_MEMORY", no_memory(device, "tensor", object.stored->whole().bytes()));
    return tensor;
  }

  const Napi::CallbackInfo& info_;
  Environment& environment_;
  const char* op_;
  size_t next_ = 0;
  int32_t device_ = -1;
  std::vector<std::shared_ptr<PagedWeight>> paged_;
  bool any_paged_ = false;
};

}  // namespace lowrank::addon
