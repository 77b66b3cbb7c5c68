#include "dtypes.cuh"
#include "kernels.h"
#include "loss_rows.h"
#include "reports.cuh"
#include "rows.cuh"

namespace lowrank::cuda {

namespace {

constexpr int kThreads = 256;
constexpr int kShared = 2 * kWarpSums * sizeof(double);

GPU_FN float block_max(float value, float* most) {
  for (int lanes = 16; lanes > 0; lanes /= 2) value = fmaxf(value, __shfl_xor_sync(kAllLanes, value, lanes));
  if (blockDim.x == 32) return value;
  if (lane_id() == 0) most[warp_id()] = value;
  __syncthreads();
  float all = most[0];
  for (unsigned warp = 1; warp < blockDim.x / 32; ++warp) all = fmaxf(all, most[warp]);
  return all;
}

// scale * (softmax - onehot) of a row, in place of its logits. Numbers of half their size take the row's first half: each turn of the block
// then writes where only this turn and those before have read.
template <int kCount, class G, class T, class Gradient>
GPU_FN void write_gradients(const T* logits, G* to, int64_t classes, const Gradient& gradient) {
  const int64_t step = static_cast<int64_t>(blockDim.x) * kCount;
  for (int64_t first = 0; first < classes; first += step) {
    const int64_t i = first + static_cast<int64_t>(threadIdx.x) * kCount;
    Floats<kCount> l{};
    if (i < classes) {
      l = load<kCount>(logits + i);
      for (int j = 0; j < kCount; ++j) l.at[j] = gradient(i + j, l.at[j]);
    }
    if constexpr (sizeof(G) < sizeof(T)) __syncthreads();
    if (i < classes) store<kCount>(to + i, l);
  }
}

// A thread's share of sum exp(l - max) over a row, in one pass: the maximum is found on the way. The sum is taken relative to `shift`, which
// follows the maximum from kSlack below, so that it is seldom rescaled, which rounds it. A pack's sum is compensated (Kahan): f64 would be 64
// times as slow as f32 on sm_86, sm_89 and sm_120.
struct Softmax {
  static constexpr float kSlack = 16.0f;
  float most = -INFINITY, shift = -INFINITY, sum = 0.0f, lost = 0.0f;

  template <int kCount, class Counts>
  GPU_FN void add(const Floats<kCount>& l, const Counts& counts) {
    GPU_UNROLL
    for (int j = 0; j < kCount; ++j) most = fmaxf(most, l.at[j]);
    if (most > shift + kSlack) {
      const float shrink = expf(shift - most);
      sum *= shrink, lost *= shrink, shift = most;
    }
    const float from = shift == -INFINITY ? 0.0f : shift;
    float own = 0;
    GPU_UNROLL
    for (int j = 0; j < kCount; ++j) own += counts(j) ? expf(l.at[j] - from) : 0.0f;
    const float more = own - lost, total = sum + more;
    lost = (total - sum) - more, sum = total;
  }
  // The sum relative to a maximum of all threads.
  GPU_FN double relative_to(float all) const {
    return (static_cast<double>(sum) - static_cast<double>(lost)) * static_cast<double>(shift == -INFINITY ? 0.0f : expf(shift - all));
  }
};

// A block is a row. The target is left out of the sum and brought in at the end: 1 - p is then a sum of the others and loses no
// digits. NaN in a row makes its sum NaN; -inf is exp 0.
template <int kCount, class T, class G>
__global__ void __launch_bounds__(kMostRowThreads) loss_of_rows(LossRows p) {
  GPU_SHARED(shared);
  const int64_t row = blockIdx.x;
  const int32_t target = p.targets[row];
  const T* logits = static_cast<const T*>(p.logits) + row * p.pitch;
  G* gradients = static_cast<G*>(p.logits) + row * p.pitch * static_cast<int64_t>(sizeof(T) / sizeof(G));
  if (target == kIgnoreIndex || !in_range(target, p.classes, p.first_row + row, p.report)) {
    for_packs<kCount>(p.classes, [&](int64_t i) { store<kCount>(gradients + i, Floats<kCount>{}); });
    if (threadIdx.x == 0) p.losses[row] = 0.0;
    return;
  }
  Softmax own;
  for_packs<kCount>(p.classes, [&](int64_t i) { own.add(load<kCount>(logits + i), [&](int j) { return i + j != target; }); });
  const float most = block_max(own.most, reinterpret_cast<float*>(shared));
  const float shift = most == -INFINITY ? 0.0f : most, of_target = to_f32(logits[target]);
  const double others = block_sum(own.relative_to(shift), reinterpret_cast<double*>(shared) + kWarpSums);
  const double all = others + exp(static_cast<double>(of_target) - static_cast<double>(shift));
  const auto factor = static_cast<float>(static_cast<double>(p.scale) / all), at_target = static_cast<float>(-static_cast<double>(p.scale) * others / all);
  __syncthreads();  // every thread has read the target's logit
  write_gradients<kCount>(logits, gradients, p.classes, [&](int64_t i, float logit) { return i == target ? at_target : expf(logit - shift) * factor; });
  // max - l first: log(sum) would vanish beside a max of 1e30.
  if (threadIdx.x == 0) p.losses[row] = static_cast<double>(most) - static_cast<double>(of_target) + log(all);
}

__global__ void __launch_bounds__(kThreads) sum_of_losses(const double* losses, int64_t count, float* loss) {
  GPU_SHARED(shared);
  double sum = 0;
  for (int64_t i = threadIdx.x; i < count; i += kThreads) sum += losses[i];
  sum = block_sum(sum, reinterpret_cast<double*>(shared));
  if (threadIdx.x == 0) *loss = static_cast<float>(sum);
}

template <class T, class G>
void launch_rows(Queue& queue, const LossRows& rows) {
  by_packs<kPack<T>>(rows.classes, [&](auto count) {
    constexpr int kCount = decltype(count)::value;
    GPU_LAUNCH((loss_of_rows<kCount, T, G>), static_cast<unsigned>(rows.rows), row_threads(rows.classes, kCount), kShared, queue.stream(), rows);
  }, Rows<T>{static_cast<T*>(rows.logits), rows.pitch});
}

}  // namespace

void loss_rows(Queue& queue, const LossRows& rows) {
  if (rows.rows == 0) return;
  with_activation(rows.dtype, [&](auto stored) {
    using T = typename decltype(stored)::Type;
    if (rows.gradient == rows.dtype) return launch_rows<T, T>(queue, rows);
    if (rows.gradient == DType::bf16) return launch_rows<float, bf16>(queue, rows);
    launch_rows<float, f16>(queue, rows);
  });
}

void sum_losses(Queue& queue, const double* losses, int64_t count, float* loss) {
  GPU_LAUNCH(sum_of_losses, 1, kThreads, kShared, queue.stream(), losses, count, loss);
}

void cross_entropy_inplace(const CrossEntropyInplace& op, Queue& queue) {
  const int64_t rows = op.logits.rows(), classes = op.logits.cols();
  auto* losses = queue.scratch_for<double>(rows);
  Report* report = queue.watch({"cross_entropy_inplace: target", classes});
  if (losses == nullptr || report == nullptr) return;
  loss_rows(queue, {op.logits.data, op.logits.dtype, op.logits.dtype, op.logits.pitch, op.targets.i32(), losses, report, rows, classes, 0, op.scale});
  sum_losses(queue, losses, rows, op.loss.f32());
}

}  // namespace lowrank::cuda
