// Right kernels, in many schedules: right results and no report.
#include "run.cuh"

namespace planted {

namespace {

using cusim::CopyArrival;
using cusim::Order;
using cusim::config;

constexpr int kSeeds = 12;

template <class Run>
void clean(const std::string& what, const Run& run) {
  std::string fault;
  int schedules = 0;
  for (const CopyArrival arrival : {CopyArrival::at_wait, CopyArrival::at_issue}) {
    for (int seed = 0; seed < kSeeds && fault.empty(); ++seed, ++schedules) {
      config.seed = static_cast<uint64_t>(seed);
      config.copies = arrival;
      config.order = seed == 0 ? Order::forward : seed == 1 ? Order::reverse : Order::random;
      fault = run();
    }
  }
  config = {};
  claim(what + ": right, and nothing is reported", fault.empty(), fault.empty() ? cusim::format("%d schedules", schedules) : fault);
}

}  // namespace

void test_clean_kernels() {
  clean("a product with f16, two stages, ragged T, N and K", [] { return run_product<f16, 2, Defect::none>({70, 37, 72}); });
  clean("a product with bf16, three stages", [] { return run_product<bf16, 3, Defect::none>({64, 32, 136}); });
  clean("a product with one row and one column", [] { return run_product<bf16, 3, Defect::none>({1, 1, 8}); });
  clean("a sum over five blocks", [] { return run_sum<Defect::none>(3001, 5); });
  clean("a sum of fewer numbers than threads", [] { return run_sum<Defect::none>(7, 2); });
  clean("warps that meet in pairs at named barriers", [] { return run_hand_over<Defect::none>(); });
}

}  // namespace planted
