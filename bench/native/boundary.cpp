// A lora_linear call through the C ABI, timed with no JavaScript in the way. Reads lines "T K N r threads repeats", answers each with the
// mean of so many calls: {"ms": ...}. W0 is bf16.
#include <math.h>
#include <stdio.h>

#include <chrono>

#include "device.h"

namespace {

using namespace lowrank::bench;

struct Ask {
  long long T, K, N, r;
  int threads, repeats;
};

lowrank_lora_linear_args layer(Device& device, const Ask& ask) {
  lowrank_lora_linear_args args{};
  args.y = device.empty({ask.T, ask.N}), args.u = device.empty({ask.T, ask.r}), args.x = device.noise({ask.T, ask.K}, 1);
  args.w = weight_over(device.noise({ask.N, ask.K}, 2, LOWRANK_BF16));
  args.a = device.noise({ask.r, ask.K}, 3), args.b = device.noise({ask.N, ask.r}, 4);
  args.rank[0] = ask.r, args.scale[0] = 2;
  return args;
}

// The last element of y, by plain loops.
bool is_right(const lowrank_lora_linear_args& args, const Ask& ask) {
  const float* x = f32(args.x) + (ask.T - 1) * ask.K;
  lowrank_tensor w{};
  w.data = const_cast<void*>(args.w.data[0]), w.dtype = args.w.dtype;
  double sum = 0, size = 0;
  for (int64_t k = 0; k < ask.K; ++k) sum += x[k] * at(w, (ask.N - 1) * ask.K + k), size += fabs(x[k] * at(w, (ask.N - 1) * ask.K + k));
  for (int64_t i = 0; i < ask.r; ++i) sum += at(args.u, (ask.T - 1) * ask.r + i) * at(args.b, (ask.N - 1) * ask.r + i);
  return fabs(at(args.y, ask.T * ask.N - 1) - sum) <= 1e-4 * (size + fabs(sum));
}

double milliseconds(const Ask& ask) {
  Device device(LOWRANK_HIGHEST, ask.threads);
  const lowrank_lora_linear_args args = layer(device, ask);
  device.launch(lowrank_lora_linear, args);
  if (!is_right(args, ask)) stop("boundary: y must be x W^T + u B^T");
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < ask.repeats; ++i) device.launch(lowrank_lora_linear, args);
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count() / ask.repeats;
}

}  // namespace

int main() {
  char line[256];
  while (fgets(line, sizeof line, stdin) != nullptr) {
    Ask ask{};
    if (sscanf(line, "%lld %lld %lld %lld %d %d", &ask.T, &ask.K, &ask.N, &ask.r, &ask.threads, &ask.repeats) != 6) stop("boundary: T K N r threads repeats");
    printf("{\"ms\":%.6f}\n", milliseconds(ask));
    fflush(stdout);
  }
}
