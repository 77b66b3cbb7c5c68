#include "operands.h"

#include <cstring>
#include <memory>
#include <utility>

#include "checker.h"
#include "graphs.h"
#include "memory.h"

namespace cusim {

namespace {

thread_local OperandScope* innermost = nullptr;
// Scopes that a graph's launch has opened, outermost first.
thread_local std::vector<std::unique_ptr<OperandScope>> replayed;
// What scopes do, as nodes of a graph.
const char begins = 0, declares = 0, ends = 0;

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
  if (keep(&begins, [operands = operands_](Stream*) { replayed.push_back(std::make_unique<OperandScope>(operands)); })) return;
  for (const Operand& operand : operands_)
    if (operand.role == Role::write) forget(operand, operands_);
}

OperandScope::~OperandScope() {
  innermost = outer_;
  keep(&ends, [](Stream*) { replayed.pop_back(); });
}

void OperandScope::end_replayed() {
  while (!replayed.empty()) replayed.pop_back();
}

void OperandScope::declare(const Operand& operand) {
  if (innermost == nullptr) return;
  innermost->operands_.push_back(operand);
  if (keep(&declares, [operand](Stream*) { declare(operand); })) return;
  if (operand.role == Role::write) forget(operand, innermost->operands_);
}

const OperandScope* OperandScope::current() { return innermost; }

}  // namespace cusim
