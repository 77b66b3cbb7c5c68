// Kernels with defects to be planted, for the emulator's own tests: a product with tensor cores and a pipeline of cp.async, and a sum
// with every kind of exchange between threads. With Defect::none they are right.
#pragma once
#include "../../../cuda/ptx.cuh"

namespace planted {

using namespace lowrank::cuda;

enum class Defect {
  none, no_barrier, late_wait, no_row_guard, no_k_guard, no_column_guard, no_rank_guard, barrier_in_branch, early_prefetch, misaligned_ldmatrix,
  mma_in_branch, no_warp_barrier, early_return, bad_mask, lane_outside_mask, plain_ticket, no_release, no_acquire, shared_overflow, uninitialised_shared,
  named_barrier_missing, late_gift, lost_arrival, row_mask_off_by_one
};

// y[t, n] = sum_k x[t, k] w[n, k]; x: T x K, w: N x K in 16 bits, y f32. A block makes 64 x 32 with four warps, K in steps of 32 through
// kStages buffers. 16-byte pieces of a row of 64 bytes are exchanged so that ldmatrix meets no bank twice. K must be a multiple of 8.
constexpr int kRows = 64, kColumns = 32, kDepth = 32, kThreads = 128;
constexpr int kStageBytes = (kRows + kColumns) * kDepth * 2;
template <int kStages>
constexpr int kProductBytes = kStages * kStageBytes;

struct Product {
  const uint16_t* x;
  const uint16_t* w;
  float* y;
  int T, N, K;
};

GPU_FN unsigned char* piece(unsigned char* stage, int row, int at) { return stage + row * 64 + ((at ^ (row >> 1 & 3)) << 4); }

template <Defect kDefect>
GPU_FN void load_stage(const Product& p, unsigned char* stage, int k0) {
  const int row0 = blockIdx.x * kRows, column0 = blockIdx.y * kColumns;
  for (int i = threadIdx.x; i < (kRows + kColumns) * 4; i += kThreads) {
    const int row = i / 4, at = i % 4, k = k0 + at * 8;
    const bool is_x = row < kRows;
    const int64_t r = is_x ? row0 + row : column0 + row - kRows;
    const bool row_given = is_x ? (kDefect == Defect::no_row_guard || r < p.T + (kDefect == Defect::row_mask_off_by_one)) : (kDefect == Defect::no_rank_guard || r < p.N);
    const bool given = row_given && (kDefect == Defect::no_k_guard || k < p.K);
    const uint16_t* matrix = is_x ? p.x : p.w;
    ptx::cp_async16(piece(stage, row, at), given ? matrix + r * p.K + k : matrix, given);
  }
}

template <class H, int kStages, Defect kDefect>
__global__ void __launch_bounds__(kThreads) product(Product p) {
  GPU_SHARED(shared);
  const int lane = lane_id(), warp = warp_id(), steps = (p.K + kDepth - 1) / kDepth;
  float sums[4][4] = {};
  for (int s = 0; s < kStages - 1; ++s) {
    if (s < steps) load_stage<kDefect>(p, shared + s * kStageBytes, s * kDepth);
    ptx::cp_async_commit();
  }
  for (int step = 0; step < steps; ++step) {
    const int next = step + kStages - 1;
    const auto prefetch = [&] {
      if (next < steps) load_stage<kDefect>(p, shared + next % kStages * kStageBytes, next * kDepth);
      ptx::cp_async_commit();
    };
    if (kDefect == Defect::early_prefetch) prefetch();
    ptx::cp_async_wait<kStages - 2 + (kDefect == Defect::late_wait || kDefect == Defect::early_prefetch)>();
    if (kDefect == Defect::barrier_in_branch && warp == 0) {
      __syncthreads();
    } else if (kDefect != Defect::no_barrier) {
      __syncthreads();  // this step has landed for all, and all are done with the one before
    }
    if (kDefect != Defect::early_prefetch) prefetch();
    unsigned char* stage = shared + step % kStages * kStageBytes;
    for (int half = 0; half < 2; ++half) {
      uint32_t a[4];
      ptx::ldmatrix_x4(a, piece(stage, warp * 16 + lane % 16, half * 2 + lane / 16) + (kDefect == Defect::misaligned_ldmatrix && lane == 5 ? 8 : 0));
      for (int n = 0; n < 2; ++n) {
        uint32_t b[4];
        ptx::ldmatrix_x4(b, piece(stage, kRows + n * 16 + lane % 8 + lane / 16 * 8, half * 2 + lane / 8 % 2));
        if (kDefect == Defect::mma_in_branch && lane % 2 == 1) continue;
        ptx::mma_m16n8k16<H>(sums[2 * n], a, b[0], b[1]);
        ptx::mma_m16n8k16<H>(sums[2 * n + 1], a, b[2], b[3]);
      }
    }
  }
  for (int n = 0; n < 4; ++n) {
    for (int e = 0; e < 4; ++e) {
      const int64_t row = blockIdx.x * kRows + warp * 16 + lane / 4 + e / 2 * 8, column = blockIdx.y * kColumns + n * 8 + lane % 4 * 2 + e % 2;
      if (row < p.T && (kDefect == Defect::no_column_guard || column < p.N)) p.y[row * p.N + column] = sums[n][e];
    }
  }
}

// out = sum of x[0, n): shuffles in a warp, shared memory in a block, a ticket between blocks.
struct Sum {
  const float* x;
  float* partial;    // one a block
  unsigned* ticket;  // 0 before
  float* out;
  int n;
};
constexpr int kSumThreads = 256, kSumBytes = 9 * 4;

GPU_FN float sum_warp(float value, uint32_t mask) {
  for (int lanes = 16; lanes > 0; lanes /= 2) value += __shfl_xor_sync(mask, value, lanes);
  return value;
}

template <Defect kDefect>
__global__ void __launch_bounds__(kSumThreads) sum(Sum p) {
  GPU_SHARED(shared);
  auto* sums = reinterpret_cast<float*>(shared);
  auto* order = reinterpret_cast<unsigned*>(sums + 8);
  const int lane = lane_id(), warp = warp_id(), first = blockIdx.x * kSumThreads + threadIdx.x;
  if (kDefect == Defect::early_return && first >= p.n) return;
  float own = 0;
  for (int i = first; i < p.n; i += gridDim.x * kSumThreads) own += p.x[i];
  if (kDefect == Defect::bad_mask && lane < 16) own += __shfl_xor_sync(kAllLanes, own, 1);
  if (kDefect == Defect::lane_outside_mask) own += __shfl_xor_sync(0x0000ffffu, own, 1);
  own = sum_warp(own, kAllLanes);
  if (lane == 0 && !(kDefect == Defect::uninitialised_shared && warp == 3)) sums[kDefect == Defect::shared_overflow ? warp + 4 : warp] = own;
  if (kDefect != Defect::no_barrier) __syncthreads();
  if (warp != 0) return;
  own = sum_warp(lane < 8 ? sums[lane] : 0, kAllLanes);
  if (lane == 0) {
    p.partial[blockIdx.x] = own;
    if (kDefect != Defect::no_release) __threadfence();
    if (kDefect == Defect::plain_ticket) {
      *order = *p.ticket;
      *p.ticket = *order + 1;
    } else {
      *order = atomicAdd(p.ticket, 1u);
    }
  }
  if (kDefect != Defect::no_warp_barrier) __syncwarp();
  if (*order != gridDim.x - 1) return;
  if (kDefect != Defect::no_acquire) ptx::fence_gpu();
  own = 0;
  for (int i = lane; i < static_cast<int>(gridDim.x); i += 32) own += p.partial[i];
  own = sum_warp(own, kAllLanes);
  if (lane == 0) *p.out = own;
}

// y = x, handed from warps 0 and 1 to warps 2 and 3 through shared memory with a named barrier each, at which warp 1 doesn't wait.
template <Defect kDefect>
__global__ void __launch_bounds__(128) hand_over(const float* x, float* y) {
  GPU_SHARED(shared);
  auto* buffer = reinterpret_cast<float*>(shared);
  const int pair = warp_id() % 2, at = pair * 32 + lane_id();
  if (warp_id() < 2 && (kDefect != Defect::late_gift || pair == 0)) buffer[at] = x[at];
  __syncwarp();
  if (kDefect != Defect::named_barrier_missing || pair == 0) {
    if (warp_id() == 1) ptx::bar_arrive(1 + pair, 64);
    else ptx::bar_sync(1 + pair, 64);
  }
  if (warp_id() == 1 && kDefect == Defect::late_gift) buffer[at] = x[at];
  if (warp_id() == 1 && kDefect == Defect::lost_arrival) ptx::bar_arrive(3, 64);
  if (warp_id() >= 2) y[at] = buffer[at];
}

}  // namespace planted
