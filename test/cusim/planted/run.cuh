// One run of a kernel against its result computed on the host: "" when right, else what is wrong.
#pragma once
#include "check.h"
#include "kernels.cuh"

namespace planted {

struct Shape {
  int T, N, K;
};

template <class H>
std::vector<uint16_t> to_half(const std::vector<float>& values) {
  std::vector<uint16_t> bits;
  for (const float value : values) bits.push_back(from_f32<H>(value).bits);
  return bits;
}

template <class Run>
std::string report_of(const Run& run) {
  try {
    return run();
  } catch (const cusim::Error& error) {
    return error.what();
  }
}

template <class H, int kStages, Defect kDefect>
std::string run_product(const Shape& shape) {
  const auto [T, N, K] = shape;
  const std::vector<float> x = small_integers(static_cast<size_t>(T) * K, 1), w = small_integers(static_cast<size_t>(N) * K, 2);
  const Buffer<uint16_t> on_x(to_half<H>(x), "x"), on_w(to_half<H>(w), "w");
  const Buffer<float> on_y(static_cast<size_t>(T) * N, "y");
  const Product p{on_x.data(), on_w.data(), on_y.data(), T, N, K};
  const dim3 grid((T + kRows - 1) / kRows, (N + kColumns - 1) / kColumns);
  return report_of([&]() -> std::string {
    cusim::launch("product", {grid, dim3(kThreads), kProductBytes<kStages>}, [&] { product<H, kStages, kDefect>(p); });
    const std::vector<float> y = on_y.values();
    for (int t = 0; t < T; ++t) {
      for (int n = 0; n < N; ++n) {
        float want = 0;
        for (int k = 0; k < K; ++k) want += x[static_cast<size_t>(t) * K + k] * w[static_cast<size_t>(n) * K + k];
        const float got = y[static_cast<size_t>(t) * N + n];
        if (!(got == want)) return cusim::format("wrong result: y[%d,%d] is %g, not %g", t, n, got, want);
      }
    }
    return "";
  });
}

template <Defect kDefect>
std::string run_sum(int count, int blocks) {
  const std::vector<float> x = small_integers(count, 3);
  const Buffer<float> on_x(x, "x"), partial(blocks, "partial"), out(1, "out");
  const Buffer<unsigned> ticket(std::vector<unsigned>{0}, "ticket");
  const Sum p{on_x.data(), partial.data(), ticket.data(), out.data(), count};
  return report_of([&]() -> std::string {
    cusim::launch("sum", {dim3(blocks), dim3(kSumThreads), kSumBytes}, [&] { sum<kDefect>(p); });
    float want = 0;
    for (const float value : x) want += value;
    const float got = out.values()[0];
    return got == want ? "" : cusim::format("wrong result: the sum is %g, not %g", got, want);
  });
}

template <Defect kDefect>
std::string run_hand_over() {
  const std::vector<float> x = small_integers(64, 4);
  const Buffer<float> on_x(x, "x"), on_y(64, "y");
  return report_of([&]() -> std::string {
    cusim::launch("hand_over", {dim3(1), dim3(128), 256}, [&] { hand_over<kDefect>(on_x.data(), on_y.data()); });
    return on_y.values() == x ? "" : "wrong result";
  });
}

}  // namespace planted
