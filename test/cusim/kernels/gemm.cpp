// Products of 16-bit matrices against sums in double.
#include "../../../cuda/gemm/gemm.h"

#include <memory>

#include "operands.cuh"

namespace kernels {

namespace {

using lowrank::DType;
using lowrank::cuda::Gemm;
using lowrank::cuda::Lie;
using lowrank::cuda::Queue;

struct Case {
  int64_t m, n;
  std::vector<int64_t> k;  // of each term
  Lie lie = Lie::columns;
  int64_t border = 0, shift = 0;
  enum { halves, f32 } c = halves;
  bool bias = false;
  enum { none, given, is_c } carry = none;
};

// A and B have aligned rows, C and the carry any.
int64_t aligned(int64_t pitch) { return (pitch + 7) / 8 * 8; }

template <class H>
struct Term {
  Halves<H> a, b;
  int64_t k;
  Lie lie;

  Term(const Case& c, int64_t k, unsigned seed)
      : a(c.m, k, aligned(k + c.border), 0, numbers(c.m * k, seed), "A"),
        b(c.lie == Lie::columns ? c.n : k, c.lie == Lie::columns ? k : c.n, aligned((c.lie == Lie::columns ? k : c.n) + c.border), 0, numbers(c.n * k, seed + 1), "B"),
        k(k), lie(c.lie) {}
  double right(int64_t at, int64_t column) const { return lie == Lie::columns ? b.at(column, at) : b.at(at, column); }
};

struct Sum {
  double value = 0, magnitude = 0;
  void add(double x) { value += x, magnitude += std::abs(x); }
};

template <class H>
std::string run(const Case& c, uint64_t* launches = nullptr) {
  std::vector<std::unique_ptr<Term<H>>> terms;
  for (size_t i = 0; i < c.k.size(); ++i) terms.push_back(std::make_unique<Term<H>>(c, c.k[i], static_cast<unsigned>(10 * i)));
  const std::vector<double> bias = numbers(c.n, 90);
  const Buffer<float> on_bias(floats(bias), "bias"), single(static_cast<size_t>(c.m * c.n), "C");
  const Halves<H> half(c.m, c.n, c.n + c.border, c.shift, numbers(c.m * c.n, 91), "C"), carry(c.m, c.n, c.n + c.border + 8, 0, numbers(c.m * c.n, 92), "carry");
  Gemm g;
  g.dtype = H::kIsBrain ? DType::bf16 : DType::f16;
  g.b_lie = c.lie, g.m = c.m, g.n = c.n;
  for (const auto& term : terms) g.add(term->a.data(), term->a.pitch(), term->b.data(), term->b.pitch(), term->k);
  if (c.bias) g.bias = on_bias.data();
  if (c.carry == Case::given) g.carry = carry.data(), g.carry_pitch = carry.pitch();
  if (c.carry == Case::is_c) g.carry = half.data(), g.carry_pitch = half.pitch();
  g.c_is_f32 = c.c == Case::f32 ? 1 : 0;
  g.c = c.c == Case::f32 ? static_cast<void*>(single.data()) : half.data();
  g.c_pitch = c.c == Case::f32 ? c.n : half.pitch();
  const uint64_t before = cusim::counts.launches;
  const std::string failure = on_queue([&](Queue& queue) { gemm_tiles(queue, g); });
  if (launches != nullptr) *launches = cusim::counts.launches - before;
  if (!failure.empty()) return failure;
  const std::vector<uint16_t> bits = half.bits();
  const std::vector<float> singles = c.c == Case::f32 ? single.values() : std::vector<float>();
  for (int64_t i = 0; i < c.m; ++i) {
    for (int64_t j = 0; j < c.n; ++j) {
      Sum sum;
      int64_t length = 2;
      for (const auto& term : terms) {
        for (int64_t at = 0; at < term->k; ++at) sum.add(term->a.at(i, at) * term->right(at, j));
        length += term->k / 8 + 4;
      }
      if (c.bias) sum.add(static_cast<double>(static_cast<float>(bias[static_cast<size_t>(j)])));
      if (c.carry != Case::none) sum.add(c.carry == Case::is_c ? half.at(i, j) : carry.at(i, j));
      const double got = c.c == Case::f32 ? static_cast<double>(singles[static_cast<size_t>(i * c.n + j)]) : half.now(bits, i, j);
      const double within = static_cast<double>(length) * kSingle * sum.magnitude + (c.c == Case::f32 ? 0 : kRounding<H> * std::abs(sum.value) + 1e-7);
      if (!(std::abs(got - sum.value) <= within)) {
        return cusim::format("C[%lld, %lld] is %g, not %g within %g", static_cast<long long>(i), static_cast<long long>(j), got, sum.value, within);
      }
    }
  }
  return "";
}

template <class H>
void check(const std::string& what, const Case& c, int seeds = 2) {
  in_schedules(std::string(H::kIsBrain ? "bf16" : "f16") + " product: " + what, seeds, [&] { return run<H>(c); });
}

void test_splits() {
  uint64_t few = 0, many = 0;
  const std::string a = run<bf16>({.m = 5, .n = 9, .k = {100}}, &few), b = run<bf16>({.m = 5, .n = 9, .k = {700}}, &many);
  claim("a product with few tiles and a long k is cut along k, a short one is not", a.empty() && b.empty() && few == 1 && many == 2,
        a + b + cusim::format("%d and %d launches", static_cast<int>(few), static_cast<int>(many)));
}

void test_conflicts() {
  for (const Lie lie : {Lie::columns, Lie::rows}) {
    cusim::counts = {};
    run<bf16>({.m = 128, .n = 128, .k = {64}, .lie = lie});
    claim(std::string("the pieces of both tiles meet no bank twice, B in ") + (lie == Lie::columns ? "columns" : "rows"),
          cusim::counts.ldmatrix_phases > 0 && cusim::counts.ldmatrix_conflicts == 0, std::to_string(cusim::counts.ldmatrix_conflicts) + " conflicts");
  }
}

}  // namespace

void test_gemm() {
  check<bf16>("whole tiles, B in columns", {.m = 128, .n = 128, .k = {64}});
  check<f16>("whole tiles, B in rows", {.m = 128, .n = 128, .k = {64}, .lie = Lie::rows});
  check<bf16>("one number", {.m = 1, .n = 1, .k = {1}, .bias = true}, 4);
  check<f16>("nothing to sum: bias and carry alone", {.m = 3, .n = 11, .k = {}, .bias = true, .carry = Case::given});
  check<bf16>("an empty term beside another", {.m = 3, .n = 11, .k = {0, 5}, .lie = Lie::rows});
  for (const Lie lie : {Lie::columns, Lie::rows}) {
    const std::string where = lie == Lie::columns ? ", B in columns" : ", B in rows";
    check<bf16>("ragged, aligned rows with a border" + where, {.m = 133, .n = 72, .k = {104}, .lie = lie, .border = 64, .bias = true, .carry = Case::given}, 4);
    check<f16>("ragged everything, rows of C anywhere" + where, {.m = 37, .n = 131, .k = {67}, .lie = lie, .border = 3, .shift = 1, .bias = true, .carry = Case::is_c}, 4);
    check<bf16>("three terms in one pass" + where, {.m = 20, .n = 40, .k = {72, 24, 8}, .lie = lie, .border = 64, .carry = Case::is_c});
    check<f16>("cut along k" + where, {.m = 9, .n = 140, .k = {600, 41}, .lie = lie, .border = 7, .bias = true, .carry = Case::given});
    check<bf16>("cut along k, to f32" + where, {.m = 9, .n = 33, .k = {800}, .lie = lie, .border = 64, .c = Case::f32});
    check<bf16>("to f32" + where, {.m = 40, .n = 50, .k = {33}, .lie = lie, .c = Case::f32, .bias = true});
  }
  check<bf16>("ten rows of tiles and two columns", {.m = 1200, .n = 136, .k = {8}}, 1);
  test_splits();
  test_conflicts();
}

}  // namespace kernels
