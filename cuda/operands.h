// The emulator is told what each op may touch, from the op's own contract: tensors lie side by side in the pool's regions, so a read
// past the end of one would otherwise find its neighbour. Nothing under nvcc.
#pragma once
#include <stdint.h>

#ifdef LOWRANK_CUSIM
#include <cusim/emulator/operands.h>
#include <vector>

#include "../native/ops/contract.h"

namespace lowrank::cuda {

class ListOperands {
 public:
  void out(const char* name, Tensor& t, Kind) { add(name, t, cusim::Role::write); }
  void in(const char* name, Tensor& t, Kind) { add(name, t, cusim::Role::read); }
  void inout(const char* name, Tensor& t, Kind) { add(name, t, cusim::Role::update); }
  void optional(const char* name, Tensor& t, Kind) { add(name, t, cusim::Role::read); }
  // Sgd reads its buffer from the second step on.
  void optional_out(const char* name, Tensor& t, Kind) { add(name, t, cusim::Role::update); }
  void weight(const char* name, Weight& w) {
    for (int i = 0; i < w.parts; ++i) {
      operands_.push_back({w.data[i], static_cast<size_t>(w.out[i] * w.in * size_of(w.dtype)), cusim::Role::read, name});
    }
  }
  template <class T>
  void value(const char*, T&) {}
  std::vector<cusim::Operand> take() { return std::move(operands_); }

 private:
  void add(const char* name, const Tensor& t, cusim::Role role) {
    if (t.given()) operands_.push_back({t.data, static_cast<size_t>(t.bytes()), role, name});
  }
  std::vector<cusim::Operand> operands_;
};

template <class Contract>
std::vector<cusim::Operand> operands_of(Contract op) {
  ListOperands list;
  op.visit(list);
  return list.take();
}

inline void declare_scratch(void* memory, int64_t bytes) { cusim::OperandScope::declare({memory, static_cast<size_t>(bytes), cusim::Role::write, "scratch"}); }
inline void declare_report(void* memory, int64_t bytes) { cusim::OperandScope::declare({memory, static_cast<size_t>(bytes), cusim::Role::update, "report"}); }
inline void declare_reports(const void* memory, int64_t bytes) { cusim::OperandScope::declare({memory, static_cast<size_t>(bytes), cusim::Role::read, "reports"}); }

}  // namespace lowrank::cuda

#define LOWRANK_DECLARE_OPERANDS(op) const ::cusim::OperandScope operand_scope(::lowrank::cuda::operands_of(op))
#else
namespace lowrank::cuda {
inline void declare_scratch(void*, int64_t) {}
inline void declare_report(void*, int64_t) {}
inline void declare_reports(const void*, int64_t) {}
}  // namespace lowrank::cuda
#define LOWRANK_DECLARE_OPERANDS(op)
#endif
