// From the caller's structs into a contract, in call order, checked on the way.
#pragma once
#include "../ops/contract.h"
#include "context.h"

namespace lowrank::capi {

// Checks what can be wrong with a tensor by itself. False: `failure` tells it.
bool read_tensor(const lowrank_tensor& from, const char* op, const char* name, Tensor& to, Failure& failure);
// The same of a frozen weight, packed or not, and that it is on the context's device.
bool read_weight(const lowrank_weight& from, const lowrank_context& context, const char* op, const char* name, Weight& to, Failure& failure);

// A visitor that walks the struct of an op's arguments. The header declares the fields in the order of this very visit, so each lies
// where the compiler puts it: behind the last, aligned.
class Arguments {
 public:
  Arguments(const void* args, const lowrank_context& context, const char* op, Failure& failure)
      : args_(static_cast<const char*>(args)), context_(context), op_(op), failure_(failure) {}

  void out(const char* name, Tensor& t, Kind kind) { tensor(name, t, kind, Is::required); }
  void in(const char* name, Tensor& t, Kind kind) { tensor(name, t, kind, Is::required); }
  void inout(const char* name, Tensor& t, Kind kind) { tensor(name, t, kind, Is::required); }
  void optional(const char* name, Tensor& t, Kind kind) { tensor(name, t, kind, Is::optional); }
  void optional_out(const char* name, Tensor& t, Kind kind) { tensor(name, t, kind, Is::optional); }
  void optional_inout(const char* name, Tensor& t, Kind kind) { tensor(name, t, kind, Is::optional); }
  void weight(const char* name, Weight& w);
  template <class T>
  void value(const char*, T& v) { v = take<T>(); }

  // Of the whole struct, as far as it was read.
  size_t size() const { return (at_ + alignment_ - 1) / alignment_ * alignment_; }
  // Whether kernels of host memory, which want rows one behind the other, need them brought together.
  bool has_gaps() const { return has_gaps_; }

 private:
  enum class Is { required, optional };

  template <class T>
  const T& take() {
    at_ = (at_ + alignof(T) - 1) / alignof(T) * alignof(T);
    if (alignof(T) > alignment_) alignment_ = alignof(T);
    const T& value = *reinterpret_cast<const T*>(args_ + at_);
    at_ += sizeof(T);
    return value;
  }
  void tensor(const char* name, Tensor& t, Kind kind, Is is);

  const char* args_;
  const lowrank_context& context_;
  const char* op_;
  Failure& failure_;
  size_t at_ = 0, alignment_ = 1;
  bool has_gaps_ = false;
  bool keeps_gaps_ = false;  // there is room behind rows for a border, which is not the op's
};

}  // namespace lowrank::capi
