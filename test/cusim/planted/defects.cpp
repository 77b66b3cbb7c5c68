// Each defect, planted into a right kernel, must be found.
#include <cusim/emulator/checker.h>

#include "run.cuh"

namespace planted {

namespace {

constexpr int kSeeds = 20;

// Who finds a defect: the result or a report in either mode, or only the checker, because blocks run one after the other, or because what
// was read beyond an operand, but before the guard page, comes to nothing.
enum class FoundBy { both, checker };

struct Planted {
  const char* what;
  const char* report;  // words of the checker's sentence; one of several, between bars
  FoundBy found_by;
  std::string (*run)();
};

const Planted kPlanted[] = {
    {"no barrier in a cp.async loop", "race", FoundBy::both, [] { return run_product<f16, 2, Defect::no_barrier>({70, 37, 72}); }},
    {"a cp.async wait that is off by one", "nobody wrote", FoundBy::both, [] { return run_product<f16, 2, Defect::late_wait>({70, 37, 72}); }},
    {"a prefetch before the barrier", "race", FoundBy::both, [] { return run_product<bf16, 2, Defect::early_prefetch>({70, 37, 136}); }},
    {"no guard for rows (ragged T)", "out of bounds: 16 bytes at offset", FoundBy::both, [] { return run_product<f16, 2, Defect::no_row_guard>({65, 32, 64}); }},
    {"a mask of rows that is off by one (ragged T)", "out of bounds: 16 bytes at offset", FoundBy::checker, [] { return run_product<f16, 2, Defect::row_mask_off_by_one>({65, 32, 64}); }},
    {"no guard for K (ragged K)", "out of bounds: 16 bytes at offset", FoundBy::both, [] { return run_product<f16, 2, Defect::no_k_guard>({64, 32, 72}); }},
    {"no guard for columns (ragged N)", "race|out of bounds", FoundBy::both, [] { return run_product<f16, 2, Defect::no_column_guard>({64, 37, 64}); }},
    {"no guard for rows of w (ragged rank)", "out of bounds: 16 bytes at offset", FoundBy::both, [] { return run_product<f16, 2, Defect::no_rank_guard>({64, 20, 64}); }},
    {"a barrier in each branch", "barrier divergence", FoundBy::both, [] { return run_product<f16, 2, Defect::barrier_in_branch>({64, 32, 64}); }},
    {"mma under a condition on the lane", "warp divergence", FoundBy::both, [] { return run_product<f16, 2, Defect::mma_in_branch>({64, 32, 64}); }},
    {"a misaligned row of ldmatrix", "16-byte aligned", FoundBy::both, [] { return run_product<f16, 2, Defect::misaligned_ldmatrix>({64, 32, 64}); }},
    {"no barrier in a reduction", "race", FoundBy::both, [] { return run_sum<Defect::no_barrier>(3001, 5); }},
    {"no __syncwarp before a value of lane 0", "race|nobody wrote", FoundBy::both, [] { return run_sum<Defect::no_warp_barrier>(3001, 5); }},
    {"an early return before a barrier", "exits|exited", FoundBy::both, [] { return run_sum<Defect::early_return>(300, 2); }},
    {"a shuffle whose mask names lanes that don't come", "divergence|deadlock", FoundBy::both, [] { return run_sum<Defect::bad_mask>(3001, 5); }},
    {"a shuffle by a lane outside of its mask", "not in its mask", FoundBy::both, [] { return run_sum<Defect::lane_outside_mask>(3001, 5); }},
    {"shared memory that is too small", "out of bounds", FoundBy::both, [] { return run_sum<Defect::shared_overflow>(3001, 5); }},
    {"a shared number that nobody wrote", "nobody wrote", FoundBy::both, [] { return run_sum<Defect::uninitialised_shared>(3001, 5); }},
    {"a race between blocks: a ticket that is no atomic", "race", FoundBy::checker, [] { return run_sum<Defect::plain_ticket>(3001, 5); }},
    {"a race between blocks: no fence before the ticket", "race", FoundBy::checker, [] { return run_sum<Defect::no_release>(3001, 5); }},
    {"a race between blocks: no fence behind the ticket", "race", FoundBy::checker, [] { return run_sum<Defect::no_acquire>(3001, 5); }},
    {"a named barrier that one pair of warps leaves out", "race|nobody wrote", FoundBy::both, [] { return run_hand_over<Defect::named_barrier_missing>(); }},
    {"a write behind the arrival at a named barrier", "race|nobody wrote", FoundBy::both, [] { return run_hand_over<Defect::late_gift>(); }},
    {"an arrival at a named barrier where nobody waits", "the block ends while", FoundBy::both, [] { return run_hand_over<Defect::lost_arrival>(); }},
};

bool names(const std::string& fault, std::string words) {
  for (size_t bar; !words.empty(); words = bar == std::string::npos ? "" : words.substr(bar + 1)) {
    bar = words.find('|');
    if (fault.find(words.substr(0, bar)) != std::string::npos) return true;
  }
  return false;
}

void find(const Planted& planted) {
  if (!cusim::checked() && planted.found_by == FoundBy::checker) return;
  int found = 0, named = 0;
  std::string first;
  for (int seed = 1; seed <= kSeeds; ++seed) {
    cusim::config.seed = static_cast<uint64_t>(seed);
    const std::string fault = planted.run();
    found += fault.empty() ? 0 : 1;
    named += names(fault, planted.report) ? 1 : 0;
    if (first.empty()) first = fault;
  }
  cusim::config = {};
  // The checker sees a defect in every schedule, in words that name it; without it one must show in some.
  const bool well = cusim::checked() ? found == kSeeds && named > 0 && first.find("kernels.cuh:") != std::string::npos : found > 0;
  claim(std::string("found: ") + planted.what, well, cusim::format("%d of %d schedules, %d by name; first: %s", found, kSeeds, named, first.c_str()));
}

}  // namespace

void test_planted_defects() {
  for (const Planted& planted : kPlanted) find(planted);
}

}  // namespace planted
