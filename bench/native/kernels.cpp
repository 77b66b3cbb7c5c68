// The kernels under Google Benchmark, through the C ABI: no Node, no stream, no tape. Each case checks one result against a plain
// loop before it is timed. LOWRANK_ISA and LOWRANK_THREADS are heard; all of Google Benchmark's flags too:
//   kernels --benchmark_filter=lora_linear --benchmark_repetitions=5 --benchmark_format=json
#include <benchmark/benchmark.h>
#include <math.h>

#include <functional>
#include <string>

#include "device.h"

namespace {

using namespace lowrank::bench;
using Tensor = lowrank_tensor;

// What a kernel made of it, and what a plain loop makes of it.
struct Check {
  double found, wanted, allowed;
};

struct Work {
  std::function<void()> run;
  std::function<Check()> check;
  double flops;  // of matrix products; 0: `bytes` counts
  double bytes;  // that have to be moved
};

using Make = std::function<Work(Device&)>;

void time_work(benchmark::State& state, lowrank_matmul_precision precision, const Make& make) {
  Device device(precision);
  const Work work = make(device);
  work.run();
  const Check check = work.check();
  if (!(fabs(check.found - check.wanted) <= check.allowed)) {
    state.SkipWithError(("must give " + std::to_string(check.wanted) + " (found " + std::to_string(check.found) + ")").c_str());
  }
  for (auto _ : state) work.run();
  using benchmark::Counter;
  if (work.flops > 0) state.counters["FLOP/s"] = Counter(work.flops, Counter::kIsIterationInvariantRate);
  else state.counters["B/s"] = Counter(work.bytes, Counter::kIsIterationInvariantRate);
}

void add(const std::string& name, const Make& make, lowrank_matmul_precision precision = LOWRANK_HIGHEST) {
  benchmark::RegisterBenchmark(name.c_str(), [make, precision](benchmark::State& state) { time_work(state, precision, make); })
      ->UseRealTime()  // the workers' time is not the calling thread's
      ->Unit(benchmark::kMillisecond);
}

struct LayerShape {
  int64_t T, K, N, r;
};

constexpr LayerShape kLayers[] = {{256, 768, 768, 8},    {512, 2048, 2048, 16}, {512, 4096, 4096, 16},
                                  {512, 2048, 8192, 16}, {128, 4096, 4096, 64}, {2048, 1024, 1024, 8}};

std::string name_of(const LayerShape& s) {
  return std::to_string(s.T) + "x" + std::to_string(s.K) + "x" + std::to_string(s.N) + "/r" + std::to_string(s.r);
}

// sum of x[begin_x + i * step_x] * w[begin_w + i * step_w]
double dot(const Tensor& x, int64_t begin_x, int64_t step_x, const Tensor& w, int64_t begin_w, int64_t step_w, int64_t count) {
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += at(x, begin_x + i * step_x) * at(w, begin_w + i * step_w);
  return sum;
}

// Two hundredths of what a sum of such products usually is: more than bf16 rounds, less than a mistake makes.
double allowed(int64_t terms) { return sqrt(static_cast<double>(terms)) / 192 / 50; }

Work linear(Device& d, const LayerShape& s) {
  const Tensor w = d.noise({s.N, s.K}, 1, LOWRANK_BF16);
  lowrank_linear_args op{d.empty({s.T, s.N}), d.noise({s.T, s.K}, 2), weight_over(w), Tensor{}, Tensor{}};
  return {[&d, op] { d.launch(lowrank_linear, op); },
          [=] { return Check{at(op.y, s.N + 1), dot(op.x, s.K, 1, w, s.K, 1, s.K), allowed(s.K)}; },
          2.0 * s.T * s.K * s.N, 0};
}

Work linear_grad(Device& d, const LayerShape& s) {
  const Tensor w = d.noise({s.N, s.K}, 1, LOWRANK_BF16);
  lowrank_linear_grad_args op{d.empty({s.T, s.K}), d.noise({s.T, s.N}, 2), weight_over(w)};
  return {[&d, op] { d.launch(lowrank_linear_grad, op); },
          [=] { return Check{at(op.dx, s.K + 1), dot(op.dy, s.N, 1, w, 1, s.K, s.N), allowed(s.N)}; },
          2.0 * s.T * s.K * s.N, 0};
}

// One adapter of rank r, scale 2.
template <class Args>
Args with_adapter(Args args, int64_t rank, float dropout) {
  args.rank[0] = rank, args.scale[0] = 2, args.dropout = dropout, args.seed_low = 1;
  return args;
}

// Its u is read for the check: the product with W is held by the case above.
Work lora_linear(Device& d, const LayerShape& s) {
  const Tensor w = d.noise({s.N, s.K}, 1, LOWRANK_BF16);
  const auto op = with_adapter(lowrank_lora_linear_args{d.empty({s.T, s.N}), d.empty({s.T, s.r}), d.noise({s.T, s.K}, 2), weight_over(w), Tensor{}, Tensor{},
                                                        d.noise({s.r, s.K}, 3), d.noise({s.N * s.r}, 4), {}, {}, {}, 0, 0, 0, 0}, s.r, 0);
  return {[&d, op] { d.launch(lowrank_lora_linear, op); },
          [=] {
            const double wanted = dot(op.x, s.K, 1, w, s.K, 1, s.K) + dot(op.u, s.r, 1, op.b, s.r, 1, s.r);
            return Check{at(op.y, s.N + 1), wanted, allowed(s.K)};
          },
          2.0 * s.T * (s.K * s.N + s.r * (s.K + s.N)), 0};
}

Work lora_linear_grad(Device& d, const LayerShape& s, float dropout) {
  const Tensor w = d.noise({s.N, s.K}, 1, LOWRANK_BF16);
  const auto op = with_adapter(lowrank_lora_linear_grad_args{d.empty({s.T, s.K}), d.noise({s.r, s.K}, 5), d.noise({s.N * s.r}, 6), d.noise({s.T, s.N}, 7),
                                                             d.noise({s.T, s.K}, 2), d.noise({s.T, s.r}, 8), weight_over(w), d.noise({s.r, s.K}, 3),
                                                             d.noise({s.N * s.r}, 4), {}, {}, {}, 0, 0, 0, 0}, s.r, dropout);
  const double before = at(op.db, s.r);
  return {[&d, op] { d.launch(lowrank_lora_linear_grad, op); },
          [=] { return Check{at(op.db, s.r), before + dot(op.dy, 1, s.N, op.u, 0, s.r, s.T), allowed(s.T)}; },
          2.0 * s.T * (s.K * s.N + 2 * s.r * (s.K + s.N)), 0};
}

// x of zeros: each token's loss is log V.
Work linear_cross_entropy(Device& d, int64_t T, int64_t C, int64_t V) {
  const Tensor w = d.noise({V, C}, 1, LOWRANK_BF16), x = d.noise({T, C}, 2), targets = d.empty({T}, LOWRANK_I32);
  for (int64_t t = 0; t < T; ++t) i32(targets)[t] = static_cast<int32_t>(t * 37 % V);
  for (int64_t i = 0; i < count(x); ++i) f32(x)[i] = 0;
  lowrank_linear_cross_entropy_args op{d.empty({1}), d.empty({T, C}), x, weight_over(w), targets, 1.0f};
  return {[&d, op] { d.launch(lowrank_linear_cross_entropy, op); },
          [=] { return Check{at(op.loss, 0), static_cast<double>(T) * log(static_cast<double>(V)), 1e-4 * static_cast<double>(T)}; },
          4.0 * T * C * V, 0};
}

struct HeadShape {
  int64_t sequences, tokens, query, key_value, size;
};

Tensor offsets_of(Device& d, const HeadShape& s) {
  const Tensor offsets = d.empty({s.sequences + 1}, LOWRANK_I32);
  for (int64_t i = 0; i <= s.sequences; ++i) i32(offsets)[i] = static_cast<int32_t>(i * s.tokens);
  return offsets;
}

// The first token of a sequence sees itself alone: y is its v.
lowrank_attention_args attention_of(Device& d, const HeadShape& s) {
  const int64_t T = s.sequences * s.tokens, H = s.query, G = s.key_value, D = s.size;
  return {d.empty({T, H * D}), d.empty({T, H}), d.noise({T, (H + 2 * G) * D}, 1), offsets_of(d, s), H, G, 0, 1.0f / sqrtf(static_cast<float>(D))};
}

Work attention(Device& d, const HeadShape& s) {
  lowrank_attention_args op = attention_of(d, s);
  return {[&d, op] { d.launch(lowrank_attention, op); },
          [=] {
            const int64_t first = (s.sequences - 1) * s.tokens;
            return Check{at(op.y, first * s.query * s.size), at(op.qkv, first * cols(op.qkv) + (s.query + s.key_value) * s.size), 1e-6};
          },
          2.0 * static_cast<double>(count(op.y)) * static_cast<double>(s.tokens + 1), 0};
}

// dv of a sequence's last token is dy times its own weight alone, summed over the query heads of its group.
Work attention_grad(Device& d, const HeadShape& s) {
  lowrank_attention_args forward = attention_of(d, s);
  d.launch(lowrank_attention, forward);
  const int64_t T = s.sequences * s.tokens, H = s.query, G = s.key_value, D = s.size, row = (H + 2 * G) * D;
  lowrank_attention_grad_args op{d.empty({T, row}), d.noise({T, H * D}, 2), forward.qkv, forward.y, forward.lse, forward.offsets, H, G, 0, forward.scale};
  return {[&d, op] { d.launch(lowrank_attention_grad, op); },
          [=] {
            const int64_t t = s.tokens - 1;
            double wanted = 0;
            for (int64_t h = 0; h < H / G; ++h) {
              const double score = op.scale * dot(op.qkv, t * row + h * D, 1, op.qkv, t * row + H * D, 1, D);
              wanted += exp(score - at(op.lse, t * H + h)) * at(op.dy, t * H * D + h * D);
            }
            return Check{at(op.dqkv, t * row + (H + G) * D), wanted, 1e-5};
          },
          5.0 * static_cast<double>(count(op.y)) * static_cast<double>(s.tokens + 1), 0};
}

Work rms_norm(Device& d, int64_t N, int64_t C) {
  lowrank_rms_norm_args op{d.empty({N, C}), d.empty({N}), d.noise({N, C}, 1), d.noise({C}, 2), 1e-5f};
  return {[&d, op] { d.launch(lowrank_rms_norm, op); },
          [=] { return Check{at(op.y, C + 1), at(op.x, C + 1) * at(op.w, 1) / sqrt(dot(op.x, C, 1, op.x, C, 1, C) / static_cast<double>(C) + 1e-5), 1e-5}; },
          0, 8.0 * N * C};
}

Work rms_norm_grad(Device& d, int64_t N, int64_t C) {
  lowrank_rms_norm_args forward{d.empty({N, C}), d.empty({N}), d.noise({N, C}, 1), d.noise({C}, 2), 1e-5f};
  d.launch(lowrank_rms_norm, forward);
  lowrank_rms_norm_grad_args op{d.empty({N, C}), d.noise({N, C}, 3), forward.x, forward.w, forward.r, Tensor{}};
  return {[&d, op] { d.launch(lowrank_rms_norm_grad, op); },
          [=] {
            double mean = 0;
            for (int64_t i = 0; i < C; ++i) mean += at(op.w, i) * at(op.dy, C + i) * at(op.x, C + i) / static_cast<double>(C);
            const double r = at(op.r, 1);
            return Check{at(op.dx, C + 1), r * (at(op.w, 1) * at(op.dy, C + 1) - at(op.x, C + 1) * r * r * mean), 1e-5};
          },
          0, 12.0 * N * C};
}

Work layer_norm(Device& d, int64_t N, int64_t C) {
  lowrank_layer_norm_args op{d.empty({N, C}), d.empty({N}), d.empty({N}), d.noise({N, C}, 1), d.noise({C}, 2), d.noise({C}, 3), 1e-5f};
  return {[&d, op] { d.launch(lowrank_layer_norm, op); },
          [=] {
            double mean = 0, square = 0;
            for (int64_t i = 0; i < C; ++i) mean += at(op.x, C + i) / static_cast<double>(C);
            for (int64_t i = 0; i < C; ++i) square += (at(op.x, C + i) - mean) * (at(op.x, C + i) - mean) / static_cast<double>(C);
            return Check{at(op.y, C + 1), at(op.w, 1) * (at(op.x, C + 1) - mean) / sqrt(square + 1e-5) + at(op.b, 1), 1e-5};
          },
          0, 8.0 * N * C};
}

// From m = v = 0 the first step goes by lr * g / (|g| + eps).
Work adamw(Device& d, int64_t n) {
  const Tensor p = d.noise({n}, 1), m = d.noise({n}, 2), v = d.noise({n}, 3), one = d.noise({1}, 5), losses = d.noise({1}, 6);
  for (int64_t i = 0; i < n; ++i) f32(m)[i] = f32(v)[i] = 0;
  f32(one)[0] = 1;
  lowrank_adamw_args op{p, m, v, d.noise({n}, 4), one, losses, 0, 0, 1e-3f, 0.9f, 0.999f, 1e-8f, 0, 1 - 0.9f, 1 - 0.999f};
  const double before = at(p, 1), g = at(op.g, 1);
  return {[&d, op] { d.launch(lowrank_adamw, op); }, [=] { return Check{at(p, 1), before - 1e-3 * (g > 0 ? 1 : -1), 1e-5}; }, 0, 28.0 * n};
}

void add_layers(const LayerShape& s, lowrank_matmul_precision precision) {
  const std::string tail = "/" + name_of(s) + (precision == LOWRANK_MEDIUM ? "/medium" : "");
  add("linear" + tail, [s](Device& d) { return linear(d, s); }, precision);
  add("linear_grad" + tail, [s](Device& d) { return linear_grad(d, s); }, precision);
  add("lora_linear" + tail, [s](Device& d) { return lora_linear(d, s); }, precision);
  add("lora_linear_grad" + tail, [s](Device& d) { return lora_linear_grad(d, s, 0); }, precision);
  add("lora_linear_grad_dropout" + tail, [s](Device& d) { return lora_linear_grad(d, s, 0.1f); }, precision);
}

void add_all() {
  const bool medium = Device(LOWRANK_MEDIUM).info().matmul_precision == LOWRANK_MEDIUM;
  for (const LayerShape& shape : kLayers) {
    add_layers(shape, LOWRANK_HIGHEST);
    if (medium) add_layers(shape, LOWRANK_MEDIUM);
  }
  add("linear_cross_entropy/1024x576x49152", [](Device& d) { return linear_cross_entropy(d, 1024, 576, 49152); });
  for (const auto& [name, shape] : {std::pair{"4x256/9:3x64", HeadShape{4, 256, 9, 3, 64}}, {"1x2048/32:8x64", HeadShape{1, 2048, 32, 8, 64}}}) {
    add(std::string("attention/") + name, [shape = shape](Device& d) { return attention(d, shape); });
    add(std::string("attention_grad/") + name, [shape = shape](Device& d) { return attention_grad(d, shape); });
  }
  add("rms_norm/8192x2048", [](Device& d) { return rms_norm(d, 8192, 2048); });
  add("rms_norm_grad/8192x2048", [](Device& d) { return rms_norm_grad(d, 8192, 2048); });
  add("layer_norm/8192x2048", [](Device& d) { return layer_norm(d, 8192, 2048); });
  add("adamw/8388608", [](Device& d) { return adamw(d, 8 << 20); });
}

}  // namespace

int main(int count, char** arguments) {
  benchmark::Initialize(&count, arguments);
  if (benchmark::ReportUnrecognizedArguments(count, arguments)) return 1;
  const lowrank_info info = Device(LOWRANK_HIGHEST).info();
  benchmark::AddCustomContext("kernels", info.kernels);
  benchmark::AddCustomContext("threads", std::to_string(info.threads));
  add_all();
  benchmark::RunSpecifiedBenchmarks();
}
