// Cross entropy of one row of logits, and the parts of it that linear_cross_entropy shares.
#pragma once
#include <math.h>

#include "math.h"
#include "rows.h"

namespace lowrank::cpu::LOWRANK_ISA {

namespace {

// sum_j exp(l_j) = sum * exp(max)
struct SoftmaxSum {
  float max;
  double sum;
};

LOWRANK_INLINE float max_of(const float* x, int64_t cols) {
  const RowTag d;
  float max = -INFINITY;
  auto most = hn::Set(d, max);
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  for (; i + lanes <= cols; i += lanes) most = hn::Max(most, hn::LoadU(d, x + i));
  max = hn::GetLane(hn::MaxOfLanes(d, most));
  for (; i < cols; ++i) max = x[i] > max ? x[i] : max;
  return max;
}

// One pass over memory: spans that stay in the first-level cache are read twice, and earlier sums move to each new maximum.
// -inf is exp 0; a row of nothing else has max -inf and sum 0; NaN anywhere makes the sum NaN.
inline SoftmaxSum softmax_sum(const float* x, int64_t cols) {
  constexpr int64_t kSpan = 2048;
  SoftmaxSum all{-INFINITY, 0.0};
  for (int64_t start = 0; start < cols; start += kSpan) {
    const int64_t n = cols - start < kSpan ? cols - start : kSpan;
    const float* span = x + start;
    const float most = max_of(span, n);
    if (most > all.max) {
      if (all.sum != 0.0) all.sum *= exp(static_cast<double>(all.max) - static_cast<double>(most));
      all.max = most;
    }
    const float shift = all.max == -INFINITY ? 0.0f : all.max;
    all.sum += static_cast<double>(sum_of(n, [span, shift](auto d, int64_t i, auto part) {
      return exp_f32(d, hn::Sub(part.load(d, span + i), hn::Set(d, shift)));
    }));
  }
  return all;
}

inline bool targets_in_range(const Context& context, const char* op, const Tensor& targets, int64_t classes) {
  for (int64_t row = 0; row < targets.count(); ++row) {
    const int32_t target = targets.i32()[row];
    if (target == kIgnoreIndex || (target >= 0 && target < classes)) continue;
    context.fail(context.self, "ERR_RANGE", "%s: target %d at row %lld is outside [0, %lld) and is not %d", op, target,
                 static_cast<long long>(row), static_cast<long long>(classes), kIgnoreIndex);
    return false;
  }
  return true;
}

// The loss of a row whose softmax sum is known. The target must be in range. max - l first: log(sum) would vanish beside a max of 1e30.
LOWRANK_INLINE double row_loss(const float* logits, int32_t target, const SoftmaxSum& softmax) {
  return (static_cast<double>(softmax.max) - static_cast<double>(logits[target])) + log(softmax.sum);
}

// Returns the loss and leaves the gradient in `logits`; both are 0 for kIgnoreIndex. exp(l - max) / sum, not exp(l - lse):
// max is exact, a rounded lse of 30 costs four bits.
inline double cross_entropy_row(float* logits, int64_t cols, int32_t target, float scale) {
  if (target == kIgnoreIndex) {
    memset(logits, 0, static_cast<size_t>(cols) * sizeof(float));
    return 0.0;
  }
  const SoftmaxSum softmax = softmax_sum(logits, cols);
  const double loss = row_loss(logits, target, softmax);
  const float factor = static_cast<float>(static_cast<double>(scale) / softmax.sum);
  map_row(cols, [&](auto d, int64_t i, auto part) {
    const auto e = exp_f32(d, hn::Sub(part.load(d, logits + i), hn::Set(d, softmax.max)));
    part.store(hn::Mul(e, hn::Set(d, factor)), d, logits + i);
  });
  logits[target] -= scale;
  return loss;
}

}  // namespace

}  // namespace lowrank::cpu::LOWRANK_ISA
