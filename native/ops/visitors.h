// Visitors that serve every contract: operands as text, and the search for numbers that are not finite.
#pragma once
#include <math.h>
#include <stdio.h>

#include <string>

#include "contract.h"

namespace lowrank {

// "y [3,37], r [3], x [3,37], w [36]"
class Describe {
 public:
  void out(const char* name, Tensor& t, Kind) { add(name, t); }
  void in(const char* name, Tensor& t, Kind) { add(name, t); }
  void inout(const char* name, Tensor& t, Kind) { add(name, t); }
  void optional(const char* name, Tensor& t, Kind) { add(name, t); }
  void optional_out(const char* name, Tensor& t, Kind) { add(name, t); }
  void weight(const char* name, Weight& w) {
    append(std::string(name) + " [" + std::to_string(w.rows()) + "," + std::to_string(w.in) + "]");
  }
  template <class T>
  void value(const char*, T&) {}
  const std::string& text() const { return text_; }

 private:
  void append(const std::string& part) { text_ += (text_.empty() ? "" : ", ") + part; }
  void add(const char* name, const Tensor& t) {
    if (!t.given()) return;
    std::string part = std::string(name) + " [";
    for (int i = 0; i < t.rank; ++i) part += (i > 0 ? "," : "") + std::to_string(t.dims[i]);
    append(part + "]");
  }
  std::string text_;
};

// What an op reads of its frozen weights, part by part.
class WeightBytes {
 public:
  struct Bytes {
    const void* begin;
    int64_t bytes;
  };
  void out(const char*, Tensor&, Kind) {}
  void in(const char*, Tensor&, Kind) {}
  void inout(const char*, Tensor&, Kind) {}
  void optional(const char*, Tensor&, Kind) {}
  void optional_out(const char*, Tensor&, Kind) {}
  template <class T>
  void value(const char*, T&) {}
  void weight(const char*, Weight& w) {
    for (int i = 0; i < w.parts && count_ < kMost; ++i) parts_[count_++] = {w.data[i], w.out[i] * w.in * size_of(w.dtype)};
  }

  const Bytes* parts() const { return parts_; }
  int count() const { return count_; }

 private:
  static constexpr int kMost = 2 * kMaxParts;
  Bytes parts_[kMost];
  int count_ = 0;
};

// The first output with a number that is not finite, for LOWRANK_CHECK=nan. Host memory, f32.
class FindNonFinite {
 public:
  void out(const char* name, Tensor& t, Kind) { scan(name, t); }
  void in(const char*, Tensor&, Kind) {}
  void inout(const char* name, Tensor& t, Kind) { scan(name, t); }
  void optional(const char*, Tensor&, Kind) {}
  void optional_out(const char* name, Tensor& t, Kind) { scan(name, t); }
  void weight(const char*, Weight&) {}
  template <class T>
  void value(const char*, T&) {}

  const char* name() const { return name_; }
  int64_t element() const { return element_; }

 private:
  void scan(const char* name, const Tensor& t) {
    if (name_ != nullptr || !t.given() || t.dtype != DType::f32) return;
    for (int64_t i = 0, n = t.count(); i < n; ++i) {
      if (isfinite(t.f32()[i])) continue;
      name_ = name;
      element_ = i;
      return;
    }
  }
  const char* name_ = nullptr;
  int64_t element_ = 0;
};

}  // namespace lowrank
