// What a launch may touch. Tensors lie side by side in the regions of a pool, so an allocation's bounds say little; a backend
// that knows its operands declares them, and the checker holds every access to them: reads to what was declared at all, writes to outputs.
#pragma once
#include <cstddef>
#include <vector>

namespace cusim {

enum class Role { read, write, update };  // write: what it held before is gone

struct Operand {
  const void* data;
  size_t bytes;
  Role role;
  const char* name;
  size_t row = 0, pitch = 0;  // bytes; pitch > row: rows of this length, so far apart, and what lies between is not the operand's

  bool holds(const void* p, size_t n) const {
    const auto* at = static_cast<const char*>(p);
    const auto* begin = static_cast<const char*>(data);
    if (at < begin || at + n > begin + bytes) return false;
    return pitch <= row || static_cast<size_t>(at - begin) % pitch + n <= row;
  }
};

// Launches of this host thread, while one is alive, may touch its operands only. While a stream captures, scopes become a part of the graph.
class OperandScope {
 public:
  explicit OperandScope(std::vector<Operand> operands);
  OperandScope(const OperandScope&) = delete;
  OperandScope& operator=(const OperandScope&) = delete;
  ~OperandScope();

  // More for the innermost scope of this host thread, if there is one: scratch memory, taken on the way.
  static void declare(const Operand& operand);
  const std::vector<Operand>& operands() const { return operands_; }
  static const OperandScope* current();
  // Behind a graph's launch that may have ended early.
  static void end_replayed();

 private:
  std::vector<Operand> operands_;
  OperandScope* outer_;
};

}  // namespace cusim
