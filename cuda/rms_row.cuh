// RmsNorm of one row by one block, for rms_norm (a row is a token) and qk_norm (a row is a head). Sums in f32, one rounding of what is stored.
#pragma once
#include "rows.cuh"

namespace lowrank::cuda {

template <class T>
struct RmsRow {
  const T* x;      // [cols]
  const float* w;  // [cols]
  int64_t cols;
};

// Writes y and returns r.
template <int kCount, class T>
GPU_FN float rms_row(const RmsRow<T>& row, T* y, float eps, float* sums) {
  float squares = 0;
  for_packs<kCount>(row.cols, [&](int64_t i) {
    const Floats<kCount> x = load<kCount>(row.x + i);
    for (int j = 0; j < kCount; ++j) squares += x.at[j] * x.at[j];
  });
  const float r = 1.0f / sqrtf(block_sum(squares, sums) / static_cast<float>(row.cols) + eps);
  for_packs<kCount>(row.cols, [&](int64_t i) {
    Floats<kCount> x = load<kCount>(row.x + i);
    const Floats<kCount> w = load<kCount>(row.w + i);
    for (int j = 0; j < kCount; ++j) x.at[j] = x.at[j] * r * w.at[j];
    store<kCount>(y + i, x);
  });
  return r;
}

// carry may be nullptr, or dx.
template <int kCount, class T>
GPU_FN void rms_row_grad(const RmsRow<T>& row, float r, const T* dy, const T* carry, T* dx, float* sums) {
  float dot = 0;
  for_packs<kCount>(row.cols, [&](int64_t i) {
    const Floats<kCount> x = load<kCount>(row.x + i), w = load<kCount>(row.w + i), g = load<kCount>(dy + i);
    for (int j = 0; j < kCount; ++j) dot += g.at[j] * w.at[j] * x.at[j];
  });
  const float pull = block_sum(dot, sums) * r * r / static_cast<float>(row.cols);
  for_packs<kCount>(row.cols, [&](int64_t i) {
    const Floats<kCount> x = load<kCount>(row.x + i), w = load<kCount>(row.w + i), g = load<kCount>(dy + i);
    Floats<kCount> result;
    for (int j = 0; j < kCount; ++j) result.at[j] = (g.at[j] * w.at[j] - x.at[j] * pull) * r;
    if (carry != nullptr) {
      const Floats<kCount> given = load<kCount>(carry + i);
      for (int j = 0; j < kCount; ++j) result.at[j] += given.at[j];
    }
    store<kCount>(dx + i, result);
  });
}

}  // namespace lowrank::cuda
