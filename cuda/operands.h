// The emulator is told what each op may touch, from the op's own contract: tensors lie side by side in the pool's regions, so a read
// past the end of one would otherwise find its neighbour. Nothing under nvcc.
#pragma once
#include <stdint.h>

#include "../native/core/tensor.h"

#ifdef LOWRANK_CUSIM
#include <cusim/emulator/operands.h>
#include <vector>

#include "../native/ops/contract.h"

namespace lowrank::cuda {

inline size_t bytes_of(const Tensor& t, int64_t elements) { return static_cast<size_t>(elements * size_of(t.dtype)); }
// Up to the end of the last row: what lies behind it is spare, like what lies between rows.
inline size_t extent_of(const Tensor& t) { return t.rows() == 0 ? 0 : bytes_of(t, (t.rows() - 1) * t.pitch + t.cols()); }

class ListOperands {
 public:
  void out(const char* name, Tensor& t, Kind) { add(name, t, cusim::Role::write); }
  void in(const char* name, Tensor& t, Kind) { add(name, t, cusim::Role::read); }
  void inout(const char* name, Tensor& t, Kind) { add(name, t, cusim::Role::update); }
  void optional(const char* name, Tensor& t, Kind) { add(name, t, cusim::Role::read); }
  void optional_out(const char* name, Tensor& t, Kind) { add(name, t, cusim::Role::write); }
  void optional_inout(const char* name, Tensor& t, Kind) { add(name, t, cusim::Role::update); }
  void weight(const char* name, Weight& w) {
    if (w.border > 0) {
      const int64_t rows = w.order == WeightOrder::out_in ? w.rows() : w.in;
      operands_.push_back({w.data[0], static_cast<size_t>((rows + w.border) * w.pitch * size_of(w.dtype)), cusim::Role::read, name});
      return;
    }
    for (int i = 0; i < w.parts; ++i) {
      operands_.push_back({w.data[i], static_cast<size_t>(w.out[i] * w.in * size_of(w.dtype)), cusim::Role::read, name});
    }
  }
  template <class T>
  void value(const char*, T&) {}
  std::vector<cusim::Operand> take() { return std::move(operands_); }

 private:
  void add(const char* name, const Tensor& t, cusim::Role role) {
    if (t.given()) operands_.push_back({t.data, extent_of(t), role, name, bytes_of(t, t.cols()), bytes_of(t, t.pitch)});
  }
  std::vector<cusim::Operand> operands_;
};

template <class Contract>
std::vector<cusim::Operand> operands_of(Contract op) {
  ListOperands list;
  op.visit(list);
  return list.take();
}

// Columns [col, end) of rows that belong to nobody: an op that uses them says so, and what they held before is gone.
inline void declare_spare(const void* data, DType dtype, int64_t rows, int64_t col, int64_t end, int64_t pitch) {
  if (rows == 0 || end <= col) return;
  const auto size = static_cast<size_t>(size_of(dtype)), spare = static_cast<size_t>(end - col) * size, step = static_cast<size_t>(pitch) * size;
  cusim::OperandScope::declare({static_cast<const char*>(data) + static_cast<size_t>(col) * size, step * static_cast<size_t>(rows - 1) + spare, cusim::Role::write, "border", spare, step});
}
// The first `width` spare columns of an activation; reads may go on from a row into them.
inline void declare_border(const Tensor& t, int64_t width) {
  declare_spare(t.data, t.dtype, t.rows(), t.cols(), t.cols() + width, t.pitch);
  cusim::OperandScope::declare({t.data, static_cast<size_t>(t.extent()), cusim::Role::read, "rows and border"});
}
// The spare columns of a frozen weight beside its rows, and its spare rows.
inline void declare_border(const Weight& w) {
  const int64_t rows = w.order == WeightOrder::out_in ? w.rows() : w.in, cols = w.order == WeightOrder::out_in ? w.in : w.rows();
  declare_spare(w.data[0], w.dtype, rows, cols, cols + w.border, w.pitch);
  declare_spare(static_cast<const char*>(w.data[0]) + rows * w.pitch * size_of(w.dtype), w.dtype, w.border, 0, cols, w.pitch);
}
inline void declare_scratch(void* memory, int64_t bytes) { cusim::OperandScope::declare({memory, static_cast<size_t>(bytes), cusim::Role::write, "scratch"}); }
inline void declare_report(void* memory, int64_t bytes) { cusim::OperandScope::declare({memory, static_cast<size_t>(bytes), cusim::Role::update, "report"}); }
inline void declare_step(const void* memory, int64_t bytes) { cusim::OperandScope::declare({memory, static_cast<size_t>(bytes), cusim::Role::read, "step"}); }
inline void declare_reports(const void* memory, int64_t bytes) { cusim::OperandScope::declare({memory, static_cast<size_t>(bytes), cusim::Role::read, "reports"}); }

}  // namespace lowrank::cuda

#define LOWRANK_DECLARE_OPERANDS(op) const ::cusim::OperandScope operand_scope(::lowrank::cuda::operands_of(op))
// For kernels that belong to no op. What lies between the rows of `to` stays.
#define LOWRANK_DECLARE_COPY(to, to_bytes, from, from_bytes)                                                       \
  const ::cusim::OperandScope operand_scope({{to, static_cast<size_t>(to_bytes), ::cusim::Role::update, "to"}, \
                                             {from, static_cast<size_t>(from_bytes), ::cusim::Role::read, "from"}})
#else
namespace lowrank::cuda {
inline void declare_border(const Tensor&, int64_t) {}
inline void declare_border(const Weight&) {}
inline void declare_scratch(void*, int64_t) {}
inline void declare_report(void*, int64_t) {}
inline void declare_step(const void*, int64_t) {}
inline void declare_reports(const void*, int64_t) {}
}  // namespace lowrank::cuda
#define LOWRANK_DECLARE_OPERANDS(op)
#define LOWRANK_DECLARE_COPY(to, to_bytes, from, from_bytes)
#endif
