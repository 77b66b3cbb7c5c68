// Numbers for kernels that are run without an addon: matrices of 16 bits on the emulated device, with what the host knows of them.
#pragma once
#include <cusim/emulator/config.h>

#include <cmath>
#include <string>
#include <vector>

#include "../../../cuda/half.cuh"
#include "../../../cuda/queue.h"
#include "../planted/check.h"

namespace kernels {

using lowrank::cuda::bf16;
using lowrank::cuda::f16;
using planted::Buffer;
using planted::claim;

// What rounding to H is off by, relatively, at most.
template <class H>
constexpr double kRounding = H::kIsBrain ? 1.0 / 256 : 1.0 / 2048;
constexpr double kSingle = 1.0 / 16777216;

// Numbers around 0 with a spread of magnitudes, the same for the same seed.
inline std::vector<double> numbers(int64_t count, unsigned seed, double scale = 1) {
  std::vector<double> values(static_cast<size_t>(count));
  for (double& value : values) {
    seed = seed * 1664525 + 1013904223;
    const double mantissa = static_cast<double>(seed >> 8) / (1 << 24) * 2 - 1;
    seed = seed * 1664525 + 1013904223;
    value = scale * mantissa * std::ldexp(1.0, -static_cast<int>(seed >> 28) / 4);
  }
  return values;
}

template <class H>
double rounded(double value) {
  return static_cast<double>(lowrank::cuda::to_f32(lowrank::cuda::from_f32<H>(static_cast<float>(value))));
}

// A matrix [rows, cols] on the device, rows `pitch` apart, `shift` numbers behind an aligned address. What lies between the rows is NaN.
template <class H>
class Halves {
 public:
  Halves(int64_t rows, int64_t cols, int64_t pitch, int64_t shift, const std::vector<double>& given, const char* name)
      : cols_(cols), pitch_(pitch), shift_(shift), values(given), buffer_(laid_out(rows, given), name) {
    for (double& value : values) value = rounded<H>(value);
  }
  H* data() const { return reinterpret_cast<H*>(buffer_.data()) + shift_; }
  int64_t pitch() const { return pitch_; }
  double at(int64_t row, int64_t column) const { return values[static_cast<size_t>(row * cols_ + column)]; }
  // What the device holds now, borders included.
  double now(const std::vector<uint16_t>& bits, int64_t row, int64_t column) const {
    return static_cast<double>(lowrank::cuda::to_f32(H{bits[static_cast<size_t>(shift_ + row * pitch_ + column)]}));
  }
  std::vector<uint16_t> bits() const { return buffer_.values(); }

 private:
  std::vector<uint16_t> laid_out(int64_t rows, const std::vector<double>& given) const {
    std::vector<uint16_t> bits(static_cast<size_t>(shift_ + rows * pitch_), 0x7fff);
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t column = 0; column < cols_; ++column) {
        const auto value = static_cast<float>(given[static_cast<size_t>(row * cols_ + column)]);
        bits[static_cast<size_t>(shift_ + row * pitch_ + column)] = lowrank::cuda::from_f32<H>(value).bits;
      }
    }
    return bits;
  }
  int64_t cols_, pitch_, shift_;

 public:
  std::vector<double> values;

 private:
  Buffer<uint16_t> buffer_;
};

inline std::vector<float> floats(const std::vector<double>& values) { return {values.begin(), values.end()}; }

// Runs `body` on a queue of its own; what went wrong, or nothing.
template <class Body>
std::string on_queue(const Body& body) {
  lowrank::Failure failure{};
  lowrank::cuda::Queue* queue = lowrank::cuda::Queue::open(0, nullptr, failure);
  if (queue == nullptr) return failure.text;
  queue->begin(&failure);
  body(*queue);
  queue->end();
  queue->synchronize(&failure);
  delete queue;
  return failure.happened() ? failure.text : "";
}

// A claim that holds in several schedules: `run` returns what is wrong.
template <class Run>
void in_schedules(const std::string& what, int seeds, const Run& run) {
  std::string fault;
  for (int seed = 0; seed < seeds && fault.empty(); ++seed) {
    cusim::config = {};
    cusim::config.seed = static_cast<uint64_t>(seed);
    cusim::config.copies = seed % 2 == 0 ? cusim::CopyArrival::at_wait : cusim::CopyArrival::at_issue;
    fault = run();
  }
  cusim::config = {};
  claim(what, fault.empty(), fault);
}

void test_gemm();
void test_adapters();
void test_loss();
void test_attention_order();
void test_queue();
void test_guests();

}  // namespace kernels
