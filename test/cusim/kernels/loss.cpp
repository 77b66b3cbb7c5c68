// The loss over the vocabulary in 16 bits, in several chunks of rows.
#include "../../../cuda/linear_cross_entropy_halves.h"
#include "operands.cuh"

namespace kernels {

namespace {

using namespace lowrank;
using lowrank::cuda::Queue;

template <class H>
std::string in_chunks(int64_t T, int64_t C, int64_t V, int64_t logits_bytes) {
  const DType dtype = H::kIsBrain ? DType::bf16 : DType::f16;
  const Halves<H> x(T, C, C + 64, 0, numbers(T * C, 1), "x"), w(V, C, C, 0, numbers(V * C, 2), "W"), dx(T, C, C + 64, 0, numbers(T * C, 3), "dx");
  std::vector<int32_t> targets;
  for (int64_t t = 0; t < T; ++t) targets.push_back(t % 7 == 3 ? kIgnoreIndex : static_cast<int32_t>(t * 31 % V));
  const Buffer<int32_t> on_targets(targets, "targets");
  const Buffer<float> on_loss(1, "loss");
  LinearCrossEntropy op{};
  op.loss = {on_loss.data(), DType::f32, 1, {1}, 1};
  op.dx = {dx.data(), dtype, 2, {T, C}, dx.pitch()}, op.x = {x.data(), dtype, 2, {T, C}, x.pitch()};
  op.targets = {on_targets.data(), DType::i32, 1, {T}, T};
  op.w.data[0] = w.data(), op.w.out[0] = V, op.w.in = C, op.w.dtype = dtype, op.w.parts = 1;
  op.scale = 0.5f;
  if (const char* misfit = op.misfit()) return misfit;
  const std::string failure = on_queue([&](Queue& queue) { linear_cross_entropy_halves(queue, op, logits_bytes); });
  if (!failure.empty()) return failure;
  const std::vector<uint16_t> bits = dx.bits();
  double loss = 0;
  for (int64_t t = 0; t < T; ++t) {
    std::vector<double> logits(static_cast<size_t>(V));
    double all = 0;
    const int32_t target = targets[static_cast<size_t>(t)];
    for (int64_t v = 0; v < V; ++v) {
      for (int64_t c = 0; c < C; ++c) logits[static_cast<size_t>(v)] += x.at(t, c) * w.at(v, c);
      all += std::exp(logits[static_cast<size_t>(v)]);
    }
    if (target != kIgnoreIndex) loss += std::log(all) - logits[static_cast<size_t>(target)];
    for (int64_t c = 0; c < C; ++c) {
      double want = 0, within = 1e-7;
      for (int64_t v = 0; v < V && target != kIgnoreIndex; ++v) {
        const double term = 0.5 * (std::exp(logits[static_cast<size_t>(v)]) / all - (v == target ? 1 : 0)) * w.at(v, c);
        want += term, within += kRounding<H> * std::abs(term);
      }
      within += kRounding<H> * std::abs(want) + 1e-5;
      const double got = dx.now(bits, t, c);
      if (!(std::abs(got - want) <= within)) return cusim::format("dx[%d, %d] is %g, not %g within %g", static_cast<int>(t), static_cast<int>(c), got, want, within);
    }
  }
  const auto got = static_cast<double>(on_loss.values()[0]);
  return std::abs(got - loss) <= 1e-5 * loss ? "" : cusim::format("the loss is %g, not %g", got, loss);
}

}  // namespace

void test_loss() {
  in_schedules("bf16 loss over the vocabulary: three chunks of rows, a row without a target in each", 2, [] { return in_chunks<bf16>(300, 8, 33, 1); });
  in_schedules("f16 loss over the vocabulary: rows of several turns, in place", 2, [] { return in_chunks<f16>(5, 16, 1200, 1 << 20); });
}

}  // namespace kernels
