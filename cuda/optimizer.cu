// sum_squares, adamw, sgd: each over the whole arena in one go. Nothing here waits for the host: the gate is a number on the device.
#include "kernels.h"
#include "map.cuh"
#include "operands.h"
#include "rows.cuh"

namespace lowrank::cuda {

namespace {

constexpr int kThreads = 256;
constexpr int64_t kSpan = 16 * 1024;  // numbers one block adds: the split depends on the count alone, so the sum does too

// partial[block] = sum of x^2 over the block's span, in f64.
__global__ void __launch_bounds__(kThreads) sum_spans(const float* x, int64_t count, double* partial) {
  GPU_SHARED(shared);
  const int64_t begin = blockIdx.x * kSpan, end = begin + kSpan < count ? begin + kSpan : count;
  double sum = 0;
  for (int64_t i = begin + threadIdx.x; i < end; i += kThreads) sum += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  sum = block_sum(sum, reinterpret_cast<double*>(shared));
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(kThreads) sum_partials(const double* partial, int64_t count, float* out) {
  GPU_SHARED(shared);
  double sum = 0;
  for (int64_t i = threadIdx.x; i < count; i += kThreads) sum += partial[i];
  sum = block_sum(sum, reinterpret_cast<double*>(shared));
  if (threadIdx.x == 0) *out = static_cast<float>(sum);
}

// What the gate lets through. Shut: nothing is written.
struct Passed {
  int32_t open;
  float scale;  // of the gradient
};

struct GateInput {
  const float* sum_squares;  // [1]
  const float* losses;       // [count]
  int64_t count;
  float clip;
  double unscale;
  Queue::Reports reports;  // any of them: the step is wrong, and shall not run
};

__global__ void __launch_bounds__(kThreads) pass_gate(GateInput gate, Passed* passed) {
  GPU_SHARED(shared);
  int faults = 0;
  for (int64_t i = threadIdx.x; i < gate.count; i += kThreads) faults += isfinite(gate.losses[i]) ? 0 : 1;
  for (int64_t i = threadIdx.x; i < gate.reports.count; i += kThreads) faults += gate.reports.data[i] == kNothing ? 0 : 1;
  faults = block_sum(faults, reinterpret_cast<int*>(shared));
  if (threadIdx.x != 0) return;
  const double squares = static_cast<double>(*gate.sum_squares);
  const double ratio = gate.clip == 0.0f ? 1.0 : static_cast<double>(gate.clip) / (sqrt(squares) * gate.unscale + 1e-6);
  const bool open = faults == 0 && isfinite(squares);
  *passed = {open ? 1 : 0, static_cast<float>((ratio < 1.0 ? ratio : 1.0) * gate.unscale)};
}

// nullptr: the op has failed.
const Passed* pass(const Gate& gate, Queue& queue) {
  auto* passed = queue.scratch_for<Passed>(1);
  if (passed == nullptr) return nullptr;
  const Queue::Reports reports = queue.reports();
  declare_reports(reports.data, reports.count * static_cast<int64_t>(sizeof(Report)));
  const GateInput input{gate.sum_squares.f32(), gate.losses.f32(), gate.losses.count(), gate.clip, gate.unscale(), reports};
  GPU_LAUNCH(pass_gate, 1, kThreads, kWarpSums * sizeof(int), queue.stream(), input, passed);
  return passed;
}

// 1 - beta. A beta is a short decimal; its f32 is off by up to 3e-8, which is 1.3e-5 of 1 - 0.999. So the decimal is restored first.
float complement(float beta) { return static_cast<float>(1.0 - nearbyint(static_cast<double>(beta) * 1e7) / 1e7); }

struct AdamwBody {
  float* p;
  float* m;
  float* v;
  const float* g;
  const Passed* passed;
  float keep, step, unbias, fresh1, fresh2, beta2, eps;

  template <int kCount>
  GPU_FN void at(int64_t, int64_t i) const {
    if (passed->open == 0) return;
    const Floats<kCount> grad = load<kCount>(g + i);
    Floats<kCount> param = load<kCount>(p + i), mean = load<kCount>(m + i), square = load<kCount>(v + i);
    for (int j = 0; j < kCount; ++j) {
      const float own = grad.at[j] * passed->scale;
      mean.at[j] += fresh1 * (own - mean.at[j]);
      square.at[j] = own * own * fresh2 + square.at[j] * beta2;
      param.at[j] = param.at[j] * keep - step * (mean.at[j] / (sqrtf(square.at[j]) * unbias + eps));
    }
    store<kCount>(m + i, mean);
    store<kCount>(v + i, square);
    store<kCount>(p + i, param);
  }
};

struct SgdBody {
  float* p;
  float* buffer;  // nullptr: no momentum
  const float* g;
  const Passed* passed;
  float lr, momentum, weight_decay;
  int32_t first;

  template <int kCount>
  GPU_FN void at(int64_t, int64_t i) const {
    if (passed->open == 0) return;
    const Floats<kCount> grad = load<kCount>(g + i);
    Floats<kCount> param = load<kCount>(p + i), move;
    for (int j = 0; j < kCount; ++j) move.at[j] = param.at[j] * weight_decay + grad.at[j] * passed->scale;
    if (buffer != nullptr) {
      if (first == 0) {
        const Floats<kCount> old = load<kCount>(buffer + i);
        for (int j = 0; j < kCount; ++j) move.at[j] += old.at[j] * momentum;
      }
      store<kCount>(buffer + i, move);
    }
    for (int j = 0; j < kCount; ++j) param.at[j] -= move.at[j] * lr;
    store<kCount>(p + i, param);
  }
};

}  // namespace

void sum_squares(const SumSquares& op, Queue& queue) {
  const int64_t count = op.x.count(), spans = (count + kSpan - 1) / kSpan;
  auto* partial = queue.scratch_for<double>(spans);
  if (partial == nullptr) return;
  constexpr int kShared = kWarpSums * sizeof(double);
  if (spans > 0) GPU_LAUNCH(sum_spans, static_cast<unsigned>(spans), kThreads, kShared, queue.stream(), op.x.f32(), count, partial);
  GPU_LAUNCH(sum_partials, 1, kThreads, kShared, queue.stream(), partial, spans, op.sum.f32());
}

void adamw(const Adamw& op, Queue& queue) {
  const Passed* passed = pass(op.gate, queue);
  if (passed == nullptr) return;
  AdamwBody body{op.p.f32(), op.m.f32(), op.v.f32(), op.g.f32(), passed, 0, 0, 0, 0, 0, op.beta2, op.eps};
  body.keep = static_cast<float>(1.0 - static_cast<double>(op.lr) * static_cast<double>(op.weight_decay));
  body.step = static_cast<float>(static_cast<double>(op.lr) / static_cast<double>(op.correction1));
  body.unbias = static_cast<float>(1.0 / sqrt(static_cast<double>(op.correction2)));
  body.fresh1 = complement(op.beta1), body.fresh2 = complement(op.beta2);
  const MapShape all{1, op.p.count()};
  by_packs<4>(all.cols, [&](auto count) { map<decltype(count)::value>(queue, body, all); }, body.p, body.m, body.v, body.g);
}

void sgd(const Sgd& op, Queue& queue) {
  const Passed* passed = pass(op.gate, queue);
  if (passed == nullptr) return;
  float* buffer = op.momentum == 0.0f ? nullptr : op.buffer.f32();
  const SgdBody body{op.p.f32(), buffer, op.g.f32(), passed, op.lr, op.momentum, op.weight_decay, op.first != 0};
  const MapShape all{1, op.p.count()};
  by_packs<4>(all.cols, [&](auto count) { map<decltype(count)::value>(queue, body, all); }, body.p, body.buffer, body.g);
}

}  // namespace lowrank::cuda
