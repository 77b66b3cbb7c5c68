// What the passes of the gradient share.
#pragma once
#include "attention_view.cuh"

namespace lowrank::cuda {

// Of a row of queries; the rows of a kv head lie one behind the other, and zeros behind them up to a multiple of kStatsPad.
struct alignas(8) RowStats {
  float lse;    // in units of ln 2
  float delta;  // dy.y
};

constexpr int kStatsPad = 64;

template <class T>
struct AttendGrad {
  AttentionView<T> view;
  const T* dy;  // [tokens, H*D], dy_pitch from token to token
  int64_t dy_pitch;
  const RowStats* stats;  // [G, stats_pitch]
  int64_t stats_pitch;
  T* dq;  // as q, k and v lie
  T* dk;
  T* dv;
  int64_t dqkv_pitch;
  int32_t heads;  // H

  GPU_FN const RowStats* stats_of(int32_t g) const { return stats + g * stats_pitch; }
};

// dq, dk and dv in 16 bits, where rows can be read in pieces of 16 bytes and scale is positive. False: not so.
template <class T>
bool attend_grad_on_tensor_cores(Queue& queue, const AttendGrad<T>& p);

}  // namespace lowrank::cuda
