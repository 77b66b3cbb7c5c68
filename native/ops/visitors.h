// Visitors that serve every contract: operands as text, and the search for numbers that are not finite.
#pragma once
#include <math.h>
#include <stdio.h>

#include <functional>
#include <string>
#include <utility>

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
  void optional_inout(const char* name, Tensor& t, Kind) { add(name, t); }
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
  void optional_inout(const char*, Tensor&, Kind) {}
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

// Frozen weights that are put in place of an op's own, where they differ: nullptr leaves one.
class ReplaceWeights {
 public:
  explicit ReplaceWeights(const Weight* const* weights) : next_(weights) {}
  void out(const char*, Tensor&, Kind) {}
  void in(const char*, Tensor&, Kind) {}
  void inout(const char*, Tensor&, Kind) {}
  void optional(const char*, Tensor&, Kind) {}
  void optional_out(const char*, Tensor&, Kind) {}
  void optional_inout(const char*, Tensor&, Kind) {}
  template <class T>
  void value(const char*, T&) {}
  void weight(const char*, Weight& w) {
    if (*next_ != nullptr) w = **next_;
    ++next_;
  }

 private:
  const Weight* const* next_;
};

// The first output with a number that is not finite, for LOWRANK_CHECK=nan.
class FindNonFinite {
 public:
  // Where the host finds a tensor's bytes, up to the end of its last row; nullptr: nowhere.
  using Fetch = std::function<const void*(const Tensor&)>;
  explicit FindNonFinite(Fetch fetch) : fetch_(std::move(fetch)) {}

  void out(const char* name, Tensor& t, Kind) { scan(name, t); }
  void in(const char*, Tensor&, Kind) {}
  void inout(const char* name, Tensor& t, Kind) { scan(name, t); }
  void optional(const char*, Tensor&, Kind) {}
  void optional_out(const char* name, Tensor& t, Kind) { scan(name, t); }
  void optional_inout(const char* name, Tensor& t, Kind) { scan(name, t); }
  void weight(const char*, Weight&) {}
  template <class T>
  void value(const char*, T&) {}

  const char* name() const { return name_; }
  int64_t element() const { return element_; }

 private:
  // A number is finite unless all bits of its exponent are set.
  template <class Bits>
  static int64_t first(const Tensor& t, const Bits* numbers, Bits exponent) {
    for (int64_t row = 0; row < t.rows(); ++row)
      for (int64_t i = 0; i < t.cols(); ++i)
        if ((numbers[row * t.pitch + i] & exponent) == exponent) return row * t.cols() + i;
    return -1;
  }
  static int64_t first(const Tensor& t, const void* numbers) {
    if (t.dtype == DType::f32) return first<uint32_t>(t, static_cast<const uint32_t*>(numbers), 0x7f800000u);
    return first<uint16_t>(t, static_cast<const uint16_t*>(numbers), t.dtype == DType::f16 ? 0x7c00 : 0x7f80);
  }
  void scan(const char* name, const Tensor& t) {
    if (name_ != nullptr || !t.given() || !is_frozen(t.dtype) || t.count() == 0) return;
    const void* numbers = fetch_(t);
    if (numbers == nullptr) return;
    element_ = first(t, numbers);
    if (element_ >= 0) name_ = name;
  }
  Fetch fetch_;
  const char* name_ = nullptr;
  int64_t element_ = -1;
};

}  // namespace lowrank
