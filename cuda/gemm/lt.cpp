// Row-major C = A B is column-major C^T = B^T A^T: what cublasLt calls its first factor is our B.
#include "lt.h"

#ifndef LOWRANK_CUSIM
#include <map>
#include <mutex>
#include <tuple>

#include "lt_library.h"

namespace lowrank::cuda {

namespace {

constexpr int64_t kWorkspaceBytes = 32 << 20;

// The power of two, up to 256, that an address is a multiple of.
uint32_t alignment_of(const void* data) {
  const auto address = reinterpret_cast<uintptr_t>(data);
  uint32_t alignment = 256;
  while (address % alignment != 0) alignment /= 2;
  return alignment;
}

// What an algorithm is chosen for.
struct Problem {
  int device, type, c_type;
  bool b_in_columns, adds;
  int64_t m, n, k, a_pitch, b_pitch, carry_pitch, c_pitch;
  uint32_t a_alignment, b_alignment, carry_alignment, c_alignment;

  auto all() const {
    return std::tie(device, type, c_type, b_in_columns, adds, m, n, k, a_pitch, b_pitch, carry_pitch, c_pitch, a_alignment, b_alignment, carry_alignment, c_alignment);
  }
  bool operator<(const Problem& other) const { return all() < other.all(); }
};

Problem problem_of(const Queue& queue, const Gemm& g) {
  const GemmTerm& term = g.terms[0];
  Problem p;
  p.device = queue.device();
  p.type = g.dtype == DType::bf16 ? lt::kTypeBf16 : lt::kTypeF16;
  p.c_type = g.c_is_f32 != 0 ? lt::kTypeF32 : p.type;
  p.b_in_columns = g.b_lie == Lie::columns, p.adds = g.carry != nullptr;
  p.m = g.m, p.n = g.n, p.k = term.k;
  p.a_pitch = term.a_pitch, p.b_pitch = term.b_pitch, p.c_pitch = g.c_pitch, p.carry_pitch = p.adds ? g.carry_pitch : g.c_pitch;
  p.a_alignment = alignment_of(term.a), p.b_alignment = alignment_of(term.b), p.c_alignment = alignment_of(g.c);
  p.carry_alignment = p.adds ? alignment_of(g.carry) : p.c_alignment;
  return p;
}

// What cublasLt wants to have described, kept as long as the process runs.
struct Plan {
  bool good = false;
  lt::Description description = nullptr;
  lt::Layout a = nullptr, b = nullptr, carry = nullptr, c = nullptr;
  lt::Algorithm algorithm{};
};

bool describe(const lt::Library& l, const Problem& p, Plan& plan) {
  const int32_t transposed = 1;
  if (l.description_create(&plan.description, lt::kComputeF32, lt::kTypeF32) != 0) return false;
  if (p.b_in_columns && l.description_set(plan.description, lt::kTransposeA, &transposed, sizeof transposed) != 0) return false;
  const auto m = static_cast<uint64_t>(p.m), n = static_cast<uint64_t>(p.n), k = static_cast<uint64_t>(p.k);
  return l.layout_create(&plan.b, p.type, p.b_in_columns ? k : n, p.b_in_columns ? n : k, p.b_pitch) == 0 && l.layout_create(&plan.a, p.type, k, m, p.a_pitch) == 0 &&
         l.layout_create(&plan.carry, p.c_type, n, m, p.carry_pitch) == 0 && l.layout_create(&plan.c, p.c_type, n, m, p.c_pitch) == 0;
}

// A long K may be cut into pieces, which are added in f32 in the workspace, never by whichever block comes first: sums in one order, the same
// in every run.
bool choose(const lt::Library& l, lt::Handle handle, const Problem& p, Plan& plan) {
  lt::Preference preference = nullptr;
  if (l.preference_create(&preference) != 0) return false;
  const size_t workspace = kWorkspaceBytes;
  const uint32_t reductions = lt::kReduceInWorkspace, alignments[] = {p.b_alignment, p.a_alignment, p.carry_alignment, p.c_alignment};
  bool good = l.preference_set(preference, lt::kWorkspace, &workspace, sizeof workspace) == 0 && l.preference_set(preference, lt::kReductions, &reductions, sizeof reductions) == 0;
  for (int i = 0; i < 4; ++i) good = good && l.preference_set(preference, lt::kAlignments[i], &alignments[i], sizeof alignments[i]) == 0;
  lt::Heuristic found{};
  int count = 0;
  good = good && l.heuristics(handle, plan.description, plan.b, plan.a, plan.carry, plan.c, preference, 1, &found, &count) == 0 && count == 1 && found.status == 0;
  l.preference_destroy(preference);
  plan.algorithm = found.algorithm;
  return good;
}

void discard(const lt::Library& l, Plan& plan) {
  for (const lt::Layout layout : {plan.a, plan.b, plan.carry, plan.c}) {
    if (layout != nullptr) l.layout_destroy(layout);
  }
  if (plan.description != nullptr) l.description_destroy(plan.description);
  plan = {};
}

constexpr int kMostDevices = 64;

// Streams of several threads come here.
struct Shared {
  std::mutex one_at_a_time;
  lt::Handle handles[kMostDevices] = {};
  bool failed[kMostDevices] = {};
  std::map<Problem, Plan> plans;

  // For the device in force. nullptr: there is none.
  lt::Handle handle(const lt::Library& l, int device) {
    if (device >= kMostDevices || failed[device]) return nullptr;
    if (handles[device] == nullptr) failed[device] = l.create(&handles[device]) != 0;
    return failed[device] ? nullptr : handles[device];
  }
};

Shared& shared() {
  static Shared* const kept = new Shared;  // outlives every stream
  return *kept;
}

struct Ready {
  const lt::Library* library = nullptr;
  lt::Handle handle = nullptr;
  Plan plan;
};

Ready ready_for(const Queue& queue, const Gemm& g) {
  Ready ready;
  ready.library = lt::library();
  if (ready.library == nullptr || g.count == 0 || g.terms[0].k == 0) return ready;
  Shared& s = shared();
  const std::lock_guard lock(s.one_at_a_time);
  ready.handle = s.handle(*ready.library, queue.device());
  if (ready.handle == nullptr) return ready;
  const Problem problem = problem_of(queue, g);
  const auto known = s.plans.find(problem);
  if (known != s.plans.end()) {
    ready.plan = known->second;
    return ready;
  }
  ready.plan.good = describe(*ready.library, problem, ready.plan) && choose(*ready.library, ready.handle, problem, ready.plan);
  if (!ready.plan.good) discard(*ready.library, ready.plan);
  s.plans.emplace(problem, ready.plan);
  return ready;
}

void forget(const Queue& queue, const Gemm& g) {
  Shared& s = shared();
  const std::lock_guard lock(s.one_at_a_time);
  s.plans[problem_of(queue, g)].good = false;
}

}  // namespace

bool lt_can(Queue& queue, const Gemm& product) { return ready_for(queue, product).plan.good; }

bool lt_multiply(Queue& queue, const Gemm& g) {
  const Ready ready = ready_for(queue, g);
  if (!ready.plan.good) return false;
  void* workspace = queue.workspace(kWorkspaceBytes);
  if (workspace == nullptr) return true;  // the op has been failed
  const float one = 1.0f, beta = g.carry != nullptr ? 1.0f : 0.0f;
  const void* carry = g.carry != nullptr ? g.carry : g.c;
  const GemmTerm& term = g.terms[0];
  const Plan& plan = ready.plan;
  const lt::Status status = ready.library->multiply(ready.handle, plan.description, &one, term.b, plan.b, term.a, plan.a, &beta, carry, plan.carry, g.c, plan.c, &plan.algorithm,
                                                    workspace, kWorkspaceBytes, queue.stream());
  if (status != 0) forget(queue, g);
  return status == 0;
}

}  // namespace lowrank::cuda

#else

namespace lowrank::cuda {

bool lt_can(Queue&, const Gemm&) { return false; }
bool lt_multiply(Queue&, const Gemm&) { return false; }

}  // namespace lowrank::cuda
#endif
