// What the flash kernels of the gradient share.
#pragma once
#include "attention_backward.cuh"
#include "attention_mma.cuh"
#include "attention_order.cuh"

namespace lowrank::cuda {

constexpr int kGradWarps = 4, kGradThreads = 32 * kGradWarps;

// Of q, and behind them of dy: as many threads fetch them in both passes.
template <class T, int kD>
using GradRows = GroupedRows<T, kFetchStep<kGradThreads, kD>, 2>;
template <int kD, class T>
GradRows<T, kD> grad_rows(const AttendGrad<T>& p) {
  return {p.view, Pitched<T>{p.view.q, p.view.q_pitch}, Pitched<T>{p.dy, p.dy_pitch}};
}

// Of k, and behind them of v.
template <class T>
GPU_FN EvenRows<T, 2> key_rows(const AttentionView<T>& view, int32_t g) {
  const int64_t head = static_cast<int64_t>(g) * view.size;
  return {{view.k + head, view.v + head}, view.kv_pitch};
}

// Scores become p; times `factor` they are in units of ln 2. -inf becomes 0.
GPU_FN float probability_of(float score, float factor, const RowStats& row) { return ptx::exp2_approximate(fmaf(score, factor, -row.lse)); }

template <int kTiles>
GPU_FN void fill(float (&factors)[kTiles][2], float factor) {
  GPU_UNROLL
  for (int t = 0; t < kTiles; ++t) factors[t][0] = factors[t][1] = factor;
}

// dq.
template <class T>
void query_grad_on_tensor_cores(Queue& queue, const AttendGrad<T>& p);

// dk and dv: of heads up to this size a warp makes both for its keys alone, of larger ones two warps share them.
constexpr int kAlone = 128;
template <class T>
void key_grad_on_tensor_cores(Queue& queue, const AttendGrad<T>& p);
template <class T>
void key_grad_in_pairs_on_tensor_cores(Queue& queue, const AttendGrad<T>& p);

}  // namespace lowrank::cuda
