#include "table.h"

#include "kernels.h"
#include "missing.h"
#include "operands.h"

namespace lowrank::cuda {

namespace {

// Whether an activation of a contract has 16 bits.
class FindHalves {
 public:
  void out(const char*, Tensor& t, Kind kind) { look(t, kind); }
  void in(const char*, Tensor& t, Kind kind) { look(t, kind); }
  void inout(const char*, Tensor& t, Kind kind) { look(t, kind); }
  void optional(const char*, Tensor& t, Kind kind) { look(t, kind); }
  void optional_out(const char*, Tensor& t, Kind kind) { look(t, kind); }
  void weight(const char*, Weight&) {}
  template <class T>
  void value(const char*, T&) {}
  bool found() const { return found_; }

 private:
  void look(const Tensor& t, Kind kind) { found_ |= t.given() && kind == Kind::activation && size_of(t.dtype) == 2; }
  bool found_ = false;
};

template <class Contract>
bool has_halves(Contract op) {
  FindHalves look;
  op.visit(look);
  return look.found();
}

#define OP(stem, Contract)                                                                                                            \
  void call_##stem(const void* contract, Queue& queue) {                                                                              \
    const auto& op = *static_cast<const Contract*>(contract);                                                                         \
    if (only_f32(static_cast<int32_t>(Op::stem)) && has_halves(op))                                                                   \
      return queue.fail("ERR_UNSUPPORTED", #stem ": has no CUDA kernel for 16-bit activations yet (open the device with f32)");       \
    LOWRANK_DECLARE_OPERANDS(op);                                                                                                     \
    stem(op, queue);                                                                                                                  \
  }
#include "../native/ops/list.def"
#undef OP

using Call = void (*)(const void* contract, Queue& queue);

const Call kCalls[] = {
#define OP(stem, Contract) call_##stem,
#include "../native/ops/list.def"
#undef OP
};

}  // namespace

void run_op(int32_t op, const void* contract, Queue& queue) { kCalls[op](contract, queue); }

}  // namespace lowrank::cuda
