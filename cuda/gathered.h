// Ops that wait to be launched together: copies of their contracts, and what two runs of them must have in common for one graph to serve both.
#pragma once
#include <stdint.h>
#include <string.h>

#include <type_traits>
#include <vector>

#include "../native/ops/contract.h"

namespace lowrank::cuda {

class Gathered {
 public:
  template <class Contract>
  void add(int32_t op, const Contract& contract) {
    static_assert(std::is_trivially_copyable_v<Contract> && alignof(Contract) <= alignof(uint64_t));
    const size_t at = words_.size();
    words_.resize(at + (sizeof(Contract) + sizeof(uint64_t) - 1) / sizeof(uint64_t));
    memcpy(&words_[at], &contract, sizeof contract);
    key_.push_back(op);
    Contract copy = contract;
    steps_.push_back(0);
    copy.visit(*this);
    ops_.push_back({op, at, values_.size()});
  }
  void clear() { ops_.clear(), words_.clear(), key_.clear(), values_.clear(), steps_.clear(); }

  size_t count() const { return ops_.size(); }
  int32_t op(size_t i) const { return ops_[i].op; }
  const void* contract(size_t i) const { return &words_[ops_[i].contract]; }
  // Which ops, on which memory, of which shape.
  std::vector<int64_t>& key() { return key_; }
  // Of each op, that of its dropout masks, or 0.
  const std::vector<uint32_t>& steps() const { return steps_; }
  // Their other numbers; those of op i end before values_end(i).
  const std::vector<int64_t>& values() const { return values_; }
  size_t values_end(size_t i) const { return ops_[i].values_end; }

  // A contract's visitor.
  void out(const char*, Tensor& t, Kind) { note(t); }
  void in(const char*, Tensor& t, Kind) { note(t); }
  void inout(const char*, Tensor& t, Kind) { note(t); }
  void optional(const char*, Tensor& t, Kind) { note(t); }
  void optional_out(const char*, Tensor& t, Kind) { note(t); }
  void optional_inout(const char*, Tensor& t, Kind) { note(t); }
  void weight(const char*, Weight& w) {
    key_.insert(key_.end(), {w.parts, w.in, w.pitch, w.border, static_cast<int64_t>(w.dtype), static_cast<int64_t>(w.order)});
    for (int i = 0; i < w.parts; ++i) key_.insert(key_.end(), {reinterpret_cast<int64_t>(w.data[i]), w.out[i]});
  }
  template <class T>
  void value(const char* name, T& v) {
    if constexpr (std::is_same_v<T, uint32_t>) {
      if (strcmp(name, "step") == 0) {
        steps_.back() = v;
        return;
      }
    }
    int64_t bits = 0;
    memcpy(&bits, &v, sizeof v);
    values_.push_back(bits);
  }

 private:
  struct Op {
    int32_t op;
    size_t contract, values_end;
  };
  void note(const Tensor& t) {
    key_.insert(key_.end(), {reinterpret_cast<int64_t>(t.data), static_cast<int64_t>(t.dtype), t.rank, t.pitch});
    for (int i = 0; i < t.rank; ++i) key_.push_back(t.dims[i]);
  }

  std::vector<Op> ops_;
  std::vector<uint64_t> words_;
  std::vector<int64_t> key_, values_;
  std::vector<uint32_t> steps_;
};

}  // namespace lowrank::cuda
