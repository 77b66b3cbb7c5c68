// Every line of list.def as a C function: read, check, compute.
#include "../ops/all.h"
#include "../ops/visitors.h"
#include "arguments.h"
#include "pack_rows.h"

namespace lowrank::capi {

namespace {

constexpr uintptr_t kAlign = 64;

template <class Contract>
void launch(lowrank_context& context, Op id, Contract& op, Failure& failure) {
  context.backend->launch(context.device, static_cast<int32_t>(id), &op, &failure);
}

// On the CPU alone: other devices refuse gaps.
template <class Contract>
void launch_packed(lowrank_context& context, Op id, Contract& op, Failure& failure) {
  PackRows rows;
  op.visit(rows);
  context.staging.resize(static_cast<size_t>(rows.bytes()) + kAlign);
  const auto begin = (reinterpret_cast<uintptr_t>(context.staging.data()) + kAlign - 1) / kAlign * kAlign;
  rows.gather_into(reinterpret_cast<char*>(begin));
  op.visit(rows);
  launch(context, id, op, failure);
  rows.scatter();
  op.visit(rows);
}

template <class Contract, class Args>
lowrank_status call(const char* name, Op id, lowrank_context* context, const Args* args) noexcept {
  return in_context(name, context, [&](Failure& failure) {
    if (args == nullptr) return failure.set("ERR_ARGUMENT", "%s: operands must be given (found NULL)", name);
    Contract op{};
    Arguments arguments(args, *context, name, failure);
    op.visit(arguments);
    if (failure.happened()) return;
    if (arguments.size() != sizeof(Args)) return failure.set("ERR_INTERNAL", "%s: lowrank.h was made from other contracts", name);
    if (const char* misfit = op.misfit()) {
      Describe shapes;
      op.visit(shapes);
      return failure.set("ERR_SHAPE", "%s: %s (%s)", name, misfit, shapes.text().c_str());
    }
    if (arguments.has_gaps()) launch_packed(*context, id, op, failure);
    else launch(*context, id, op, failure);
  });
}

}  // namespace

}  // namespace lowrank::capi

#define OP(stem, Contract)                                                                                   \
  lowrank_status lowrank_##stem(lowrank_context* context, const lowrank_##stem##_args* args) {               \
    return lowrank::capi::call<lowrank::Contract>(#stem, lowrank::Op::stem, context, args);                  \
  }
#include "../ops/list.def"
#undef OP
