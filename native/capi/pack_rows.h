// Operands whose rows have gaps, for kernels that want none: copied into scratch before an op, its outputs copied back behind it.
// 2 bytes moved for each that the op moves: a few hundredths of a product, as much again of an op that only passes by.
#pragma once
#include <string.h>

#include <vector>

#include "../ops/contract.h"

namespace lowrank::capi {

enum class Pass { measure, gather, scatter };

// A visitor. `measure` adds up the bytes, `gather` makes the contract's tensors scratch and fills those that are read, `scatter`
// brings back those that are written.
class PackRows {
 public:
  int64_t bytes() const { return bytes_; }
  void gather_into(char* scratch) { pass_ = Pass::gather, scratch_ = scratch, next_ = 0; }
  void scatter() { pass_ = Pass::scatter, next_ = 0; }

  void out(const char*, Tensor& t, Kind) { visit(t, false, true); }
  void in(const char*, Tensor& t, Kind) { visit(t, true, false); }
  void inout(const char*, Tensor& t, Kind) { visit(t, true, true); }
  void optional(const char*, Tensor& t, Kind) { visit(t, true, false); }
  void optional_out(const char*, Tensor& t, Kind) { visit(t, false, true); }
  void optional_inout(const char*, Tensor& t, Kind) { visit(t, true, true); }
  void weight(const char*, Weight&) {}
  template <class T>
  void value(const char*, T&) {}

 private:
  static constexpr int64_t kAlign = 64;
  static constexpr int kMost = 16;

  struct Outside {
    char* data;
    int64_t step;  // bytes from row to row
  };

  void visit(Tensor& t, bool reads, bool writes) {
    const int i = next_++;
    const int64_t row = t.cols() * size_of(t.dtype);
    if (pass_ == Pass::scatter) {
      const Outside& outside = outside_[i];
      if (writes && outside.data != nullptr) copy_rows(outside.data, outside.step, static_cast<const char*>(t.data), row, row, t.rows());
      return;
    }
    if (!t.given() || t.contiguous()) return;
    if (pass_ == Pass::measure) {
      bytes_ += (t.bytes() + kAlign - 1) / kAlign * kAlign;
      return;
    }
    outside_[i] = {static_cast<char*>(t.data), t.pitch * size_of(t.dtype)};
    t.data = scratch_;
    t.pitch = t.cols();
    scratch_ += (t.bytes() + kAlign - 1) / kAlign * kAlign;
    if (reads) copy_rows(static_cast<char*>(t.data), row, outside_[i].data, outside_[i].step, row, t.rows());
  }
  static void copy_rows(char* to, int64_t to_step, const char* from, int64_t from_step, int64_t bytes, int64_t rows) {
    for (int64_t i = 0; i < rows; ++i) memcpy(to + i * to_step, from + i * from_step, static_cast<size_t>(bytes));
  }

  Pass pass_ = Pass::measure;
  int next_ = 0;
  int64_t bytes_ = 0;
  char* scratch_ = nullptr;
  Outside outside_[kMost] = {};
};

}  // namespace lowrank::capi
