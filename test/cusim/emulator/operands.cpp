#include "operands.h"

#include <cstring>
#include <utility>

#include "checker.h"
#include "memory.h"

namespace cusim {

namespace {

thread_local OperandScope* innermost = nullptr;

// An output holds nothing yet, but where it is an input too.
void forget(const Operand& output, const std::vector<Operand>& operands) {
  const Space& space = device_memory.space();
  if (!checked() || output.bytes == 0 || !space.contains(output.data)) return;
  uint8_t* written = space.written + space.offset(output.data);
  for (size_t i = 0; i < output.bytes; ++i) {
    if (!output.holds(static_cast<const char*>(output.data) + i, 1)) continue;
    bool input = false;
    for (const Operand& other : operands) input |= other.role != Role::write && other.holds(static_cast<const char*>(output.data) + i, 1);
    if (!input) written[i] = 0;
  }
}

}  // namespace

OperandScope::OperandScope(std::vector<Operand> operands) : operands_(std::move(operands)), outer_(std::exchange(innermost, this)) {
  for (const Operand& operand : operands_)
    if (operand.role == Role::write) forget(operand, operands_);
}

OperandScope::~OperandScope() { innermost = outer_; }

void OperandScope::declare(const Operand& operand) {
  if (innermost == nullptr) return;
  innermost->operands_.push_back(operand);
  if (operand.role == Role::write) forget(operand, innermost->operands_);
}

const OperandScope* OperandScope::current() { return innermost; }

}  // namespace cusim
