// Linear maps of 16-bit activations with an adapter, against sums in double: u, y, dA, dB, dx.
#include <memory>
#include <sstream>

#include "../../../cuda/lora/halves.h"
#include "../../../cuda/philox.cuh"
#include "operands.cuh"

namespace kernels {

namespace {

using namespace lowrank;
using lowrank::cuda::Queue;

struct Case {
  int64_t T, K;
  std::vector<int64_t> out, ranks;
  WeightOrder order = WeightOrder::out_in;
  bool border = true;
  float dropout = 0;
  bool extras = false;  // bias, and a carry that is y
  bool frozen = true;   // false: W0 is zero, and only the adapter shows
  int64_t shift = 0;    // activations begin behind an aligned address (without a border)
};

int64_t sum(const std::vector<int64_t>& values) {
  int64_t total = 0;
  for (const int64_t value : values) total += value;
  return total;
}

int64_t bordered(int64_t cols) { return (cols + 64 + 63) / 64 * 64; }

// A value and what its sum's terms amount to.
struct Sum {
  double value = 0, magnitude = 0;
  void add(double x) { value += x, magnitude += std::abs(x); }
  void add(const Sum& other, double factor) { value += other.value * factor, magnitude += other.magnitude * std::abs(factor); }
};

template <class H>
struct World {
  Case c;
  int64_t N, R;
  Halves<H> x, dy, y, dx;
  std::vector<std::unique_ptr<Halves<H>>> w;  // one, or one a part
  std::vector<double> W;                      // [N, K]
  std::vector<double> A, B, bias, A0, B0;
  Buffer<float> on_a, on_b, on_bias, on_u, on_da, on_db;
  LoraParts parts{};

  explicit World(const Case& given)
      : c(given), N(sum(c.out)), R(sum(c.ranks)),
        x(c.T, c.K, pitch(c.K), c.shift, numbers(c.T * c.K, 1), "x"), dy(c.T, N, pitch(N), c.shift, numbers(c.T * N, 2), "dy"),
        y(c.T, N, pitch(N), c.shift, numbers(c.T * N, 3), "y"), dx(c.T, c.K, pitch(c.K), c.shift, numbers(c.T * c.K, 4), "dx"),
        W(numbers(N * c.K, 5, c.frozen ? 1 : 0)), A(singles(R * c.K, 6)), B(singles(b_count(), 7)), bias(singles(N, 8)), A0(singles(R * c.K, 9)), B0(singles(b_count(), 10)),
        on_a(floats(A), "A"), on_b(floats(B), "B"), on_bias(floats(bias), "bias"), on_u(static_cast<size_t>(c.T * R), "u"), on_da(floats(A0), "dA"), on_db(floats(B0), "dB") {
    for (double& value : W) value = rounded<H>(value);
    lay_weight();
    for (size_t i = 0; i < c.out.size(); ++i) {
      parts.rank[i] = c.ranks[i], parts.scale[i] = 0.5f + static_cast<float>(i), parts.layer[i] = static_cast<uint32_t>(7 + 1000 * i);
    }
    parts.dropout = c.dropout, parts.seed_low = 11, parts.seed_high = 12, parts.step = 13;
  }
  static std::vector<double> singles(int64_t count, unsigned seed) {
    std::vector<double> values = numbers(count, seed);
    for (double& value : values) value = static_cast<double>(static_cast<float>(value));
    return values;
  }
  int64_t pitch(int64_t cols) const { return c.border ? bordered(cols) : cols; }
  int64_t b_count() const {
    int64_t count = 0;
    for (size_t i = 0; i < c.out.size(); ++i) count += c.out[i] * c.ranks[i];
    return count;
  }
  void lay_weight() {
    const bool out_in = c.order == WeightOrder::out_in;
    if (c.border) {  // the matrix has 64 more rows
      const int64_t rows = (out_in ? N : c.K) + 64, cols = out_in ? c.K : N;
      std::vector<double> stored(static_cast<size_t>(rows * cols), std::nan(""));
      for (int64_t n = 0; n < N; ++n)
        for (int64_t k = 0; k < c.K; ++k) stored[static_cast<size_t>(out_in ? n * c.K + k : k * N + n)] = W[static_cast<size_t>(n * c.K + k)];
      w.push_back(std::make_unique<Halves<H>>(rows, cols, bordered(cols), 0, stored, "W"));
      return;
    }
    int64_t first = 0;
    for (const int64_t out : c.out) {
      std::vector<double> stored(static_cast<size_t>(out * c.K));
      for (int64_t n = 0; n < out; ++n)
        for (int64_t k = 0; k < c.K; ++k) stored[static_cast<size_t>(out_in ? n * c.K + k : k * out + n)] = W[static_cast<size_t>((first + n) * c.K + k)];
      w.push_back(std::make_unique<Halves<H>>(out_in ? out : c.K, out_in ? c.K : out, out_in ? c.K : out, 0, stored, "W"));
      first += out;
    }
  }
  Weight weight() const {
    Weight weight{};
    weight.dtype = H::kIsBrain ? DType::bf16 : DType::f16, weight.order = c.order, weight.in = c.K, weight.parts = static_cast<int32_t>(c.out.size());
    weight.border = c.border ? 64 : 0, weight.pitch = c.border ? w[0]->pitch() : 0;
    for (size_t i = 0; i < c.out.size(); ++i) weight.out[i] = c.out[i], weight.data[i] = c.border ? w[0]->data() : w[i]->data();
    return weight;
  }
  Tensor half(const Halves<H>& halves, int64_t cols) const { return {halves.data(), H::kIsBrain ? DType::bf16 : DType::f16, 2, {c.T, cols}, halves.pitch()}; }
  static Tensor single(const Buffer<float>& buffer, int64_t rows, int64_t cols) { return {buffer.data(), DType::f32, 2, {rows, cols}, cols}; }
  static Tensor none() { return {nullptr, DType::f32, -1, {}, 0}; }

  double mask(size_t part, int64_t t, int64_t k) const {
    return c.dropout == 0 ? 1 : static_cast<double>(cuda::dropout_factor(cuda::dropout_of(parts, static_cast<int>(part)), t * c.K + k));
  }
  double scale(size_t part) const { return static_cast<double>(parts.scale[part]); }
};

// Errors that a product with factors in two halves is allowed, relative to the magnitude of its terms.
template <class H>
double split(const Sum& s) {
  return 4 * kRounding<H> * kRounding<H> * s.magnitude + 3e-7;  // f16: what is below its smallest number
}
double adding(int64_t length) { return static_cast<double>(length / 4 + 16) * kSingle; }

struct Verdict {
  std::string fault;
  void hold(const char* name, int64_t i, int64_t j, double got, double want, double within) {
    if (fault.empty() && !(std::abs(got - want) <= within)) {
      fault = cusim::format("%s[%lld, %lld] is %g, not %g within %g", name, static_cast<long long>(i), static_cast<long long>(j), got, want, within);
    }
  }
};

template <class H>
Sum u_of(const World<H>& v, size_t part, int64_t rank0, int64_t t, int64_t r) {
  Sum u;
  for (int64_t k = 0; k < v.c.K; ++k) u.add(v.scale(part) * v.mask(part, t, k) * v.x.at(t, k) * v.A[static_cast<size_t>((rank0 + r) * v.c.K + k)]);
  return u;
}

// How much less exact the adapter may be when its ranks don't fit three times.
template <class H>
double coarse(const World<H>& v) {
  const int64_t room = 64 - (v.c.extras ? 2 : 0);
  if (!v.c.border || v.R > 64 || 3 * v.R <= room) return 0;
  return (2 * v.R <= room ? 1 : 2.1) * kRounding<H>;
}

template <class H>
std::string forward(const Case& c) {
  const World<H> v(c);
  LoraLinear op{v.half(v.y, v.N), v.single(v.on_u, c.T, v.R), v.half(v.x, c.K), v.weight(), World<H>::none(), World<H>::none(), v.single(v.on_a, v.R, c.K),
                v.single(v.on_b, 1, v.b_count()), v.parts};
  if (c.extras) op.bias = v.single(v.on_bias, 1, v.N), op.carry = op.y;
  if (const char* misfit = op.misfit()) return misfit;
  const std::string failure = on_queue([&](Queue& queue) { lora_linear_halves(queue, op); });
  if (!failure.empty()) return failure;
  const std::vector<uint16_t> y = v.y.bits();
  const std::vector<float> u = v.R > 0 ? v.on_u.values() : std::vector<float>();
  Verdict verdict;
  int64_t column = 0, rank0 = 0, b0 = 0;
  for (size_t part = 0; part < c.out.size(); ++part) {
    for (int64_t t = 0; t < c.T; ++t) {
      std::vector<Sum> us;
      for (int64_t r = 0; r < c.ranks[part]; ++r) {
        us.push_back(u_of(v, part, rank0, t, r));
        verdict.hold("u", t, rank0 + r, static_cast<double>(u[static_cast<size_t>(t * v.R + rank0 + r)]), us.back().value, split<H>(us.back()) + adding(c.K) * us.back().magnitude);
      }
      for (int64_t n = 0; n < c.out[part]; ++n) {
        Sum low, all;
        for (int64_t r = 0; r < c.ranks[part]; ++r) low.add(us[static_cast<size_t>(r)], v.B[static_cast<size_t>(b0 + n * c.ranks[part] + r)]);
        for (int64_t k = 0; k < c.K; ++k) all.add(v.x.at(t, k) * v.W[static_cast<size_t>((column + n) * c.K + k)]);
        all.add(low, 1);
        if (c.extras) all.add(v.bias[static_cast<size_t>(column + n)]), all.add(v.y.at(t, column + n));
        const double bias = c.extras ? kRounding<H> * kRounding<H> * std::abs(v.bias[static_cast<size_t>(column + n)]) : 0;
        verdict.hold("y", t, column + n, v.y.now(y, t, column + n), all.value,
                     kRounding<H> * std::abs(all.value) + bias + 2 * split<H>(low) + coarse(v) * low.magnitude + adding(c.K + v.R) * all.magnitude);
      }
    }
    column += c.out[part], rank0 += c.ranks[part], b0 += c.out[part] * c.ranks[part];
  }
  return verdict.fault;
}

template <class H>
std::string backward(const Case& c) {
  const World<H> v(c);
  std::vector<double> us(static_cast<size_t>(c.T * v.R));
  int64_t column = 0, rank0 = 0, b0 = 0;
  for (size_t part = 0; part < c.out.size(); rank0 += c.ranks[part++])
    for (int64_t t = 0; t < c.T; ++t)
      for (int64_t r = 0; r < c.ranks[part]; ++r) us[static_cast<size_t>(t * v.R + rank0 + r)] = static_cast<double>(static_cast<float>(u_of(v, part, rank0, t, r).value));
  const Buffer<float> on_u(floats(us), "u");
  const LoraLinearGrad op{v.half(v.dx, c.K), v.single(v.on_da, v.R, c.K), v.single(v.on_db, 1, v.b_count()), v.half(v.dy, v.N), v.half(v.x, c.K), v.single(on_u, c.T, v.R),
                          v.weight(), v.single(v.on_a, v.R, c.K), v.single(v.on_b, 1, v.b_count()), v.parts};
  const std::string failure = on_queue([&](Queue& queue) { lora_linear_grad_halves(queue, op); });
  if (!failure.empty()) return failure;
  const std::vector<uint16_t> dx = v.dx.bits();
  const std::vector<float> da = v.R > 0 ? v.on_da.values() : std::vector<float>(), db = v.R > 0 ? v.on_db.values() : std::vector<float>();
  std::vector<Sum> all(static_cast<size_t>(c.T * c.K)), lows(all.size());
  for (int64_t t = 0; t < c.T; ++t)
    for (int64_t n = 0; n < v.N; ++n)
      for (int64_t k = 0; k < c.K; ++k) all[static_cast<size_t>(t * c.K + k)].add(v.dy.at(t, n) * v.W[static_cast<size_t>(n * c.K + k)]);
  Verdict verdict;
  rank0 = 0;
  for (size_t part = 0; part < c.out.size(); ++part) {
    const int64_t rank = c.ranks[part], out = c.out[part];
    for (int64_t r = 0; r < rank; ++r) {
      std::vector<Sum> vs(static_cast<size_t>(c.T));
      for (int64_t t = 0; t < c.T; ++t)
        for (int64_t n = 0; n < out; ++n) vs[static_cast<size_t>(t)].add(v.scale(part) * v.dy.at(t, column + n) * v.B[static_cast<size_t>(b0 + n * rank + r)]);
      for (int64_t k = 0; k < c.K; ++k) {
        const auto at = static_cast<size_t>((rank0 + r) * c.K + k);
        Sum own;
        own.add(v.A0[at]);
        for (int64_t t = 0; t < c.T; ++t) {
          own.add(vs[static_cast<size_t>(t)], v.mask(part, t, k) * v.x.at(t, k));
          lows[static_cast<size_t>(t * c.K + k)].add(vs[static_cast<size_t>(t)], v.mask(part, t, k) * v.A[at]);
        }
        verdict.hold("dA", rank0 + r, k, static_cast<double>(da[at]), own.value, 2 * split<H>(own) + static_cast<double>(c.T) * 1e-7 + adding(c.T + v.N) * own.magnitude);
      }
      for (int64_t n = 0; n < out; ++n) {
        const auto at = static_cast<size_t>(b0 + n * rank + r);
        Sum own;
        own.add(v.B0[at]);
        for (int64_t t = 0; t < c.T; ++t) own.add(v.dy.at(t, column + n) * us[static_cast<size_t>(t * v.R + rank0 + r)]);
        verdict.hold("dB", n, rank0 + r, static_cast<double>(db[at]), own.value, split<H>(own) + static_cast<double>(c.T) * 1e-7 + adding(c.T) * own.magnitude);
      }
    }
    column += out, rank0 += rank, b0 += out * rank;
  }
  for (int64_t t = 0; t < c.T; ++t) {
    for (int64_t k = 0; k < c.K; ++k) {
      const auto at = static_cast<size_t>(t * c.K + k);
      const Sum& low = lows[at];
      Sum total = all[at];
      total.add(low, 1);
      const double masked = c.dropout > 0 ? kRounding<H> * std::abs(low.value) : 0;  // that term is rounded before the product is added
      verdict.hold("dx", t, k, v.dx.now(dx, t, k), total.value,
                   kRounding<H> * (1 + kRounding<H>) * std::abs(total.value) + masked + 2 * split<H>(low) + coarse(v) * low.magnitude + adding(v.N + v.R) * total.magnitude);
    }
  }
  return verdict.fault;
}

template <class H>
void check(const std::string& what, const Case& c, int seeds = 2) {
  const std::string name = std::string(H::kIsBrain ? "bf16" : "f16") + " adapter, " + what;
  in_schedules(name + ": u and y", seeds, [&] { return forward<H>(c); });
  in_schedules(name + ": dA, dB and dx", seeds, [&] { return backward<H>(c); });
}

}  // namespace

void test_adapters() {
  check<bf16>("one number of everything", {.T = 1, .K = 1, .out = {1}, .ranks = {1}, .extras = true});
  check<bf16>("W0 zero, three copies: as good as in f32", {.T = 40, .K = 72, .out = {48}, .ranks = {8}, .frozen = false}, 1);
  check<f16>("W0 zero, three copies: as good as in f32", {.T = 40, .K = 72, .out = {48}, .ranks = {8}, .frozen = false}, 1);
  check<bf16>("W0 zero, no border: as good as in f32", {.T = 40, .K = 40, .out = {24, 16}, .ranks = {4, 30}, .border = false, .frozen = false}, 1);
  for (const WeightOrder order : {WeightOrder::out_in, WeightOrder::in_out}) {
    const std::string stored = order == WeightOrder::out_in ? ", out_in" : ", in_out";
    check<bf16>("three parts of which one has none, ragged" + stored, {.T = 150, .K = 77, .out = {75, 9, 30}, .ranks = {4, 0, 7}, .order = order, .extras = true});
    check<f16>("two copies" + stored, {.T = 33, .K = 40, .out = {24, 20}, .ranks = {9, 15}, .order = order});
    check<bf16>("one copy" + stored, {.T = 33, .K = 40, .out = {24, 20}, .ranks = {33, 20}, .order = order, .extras = true});
    check<bf16>("more ranks than the border holds" + stored, {.T = 20, .K = 40, .out = {30}, .ranks = {70}, .order = order, .extras = true});
    check<f16>("no border, ragged parts, dropout" + stored, {.T = 37, .K = 41, .out = {13, 22}, .ranks = {3, 5}, .order = order, .border = false, .dropout = 0.3f, .extras = true, .shift = 1});
    check<bf16>("dropout with a mask for each part" + stored, {.T = 70, .K = 300, .out = {40, 8, 8}, .ranks = {8, 3, 16}, .order = order, .dropout = 0.25f});
  }
  check<bf16>("several blocks of tokens", {.T = 600, .K = 24, .out = {16}, .ranks = {16}}, 1);
  check<bf16>("several blocks of columns", {.T = 20, .K = 1100, .out = {520}, .ranks = {16}}, 1);
  check<bf16>("blocks of several tiles of tokens", {.T = 400, .K = 300, .out = {260}, .ranks = {16}}, 1);
  check<bf16>("blocks of several tiles of tokens, more ranks", {.T = 400, .K = 300, .out = {260}, .ranks = {24}}, 1);
  check<bf16>("blocks of several tiles of tokens, as many ranks as a window has", {.T = 400, .K = 300, .out = {260}, .ranks = {64}}, 1);
  check<bf16>("one part of few ranks, whose A is read once for all tokens behind a mask", {.T = 150, .K = 296, .out = {40}, .ranks = {12}, .dropout = 0.25f}, 1);
  check<f16>("blocks of several tiles of tokens, parts and a mask for each", {.T = 400, .K = 300, .out = {130, 130}, .ranks = {48, 9}, .dropout = 0.25f}, 1);
  check<f16>("nothing to sum over", {.T = 3, .K = 0, .out = {5}, .ranks = {2}, .border = false, .extras = true});
  check<bf16>("no adapter, a bias in the border", {.T = 9, .K = 24, .out = {40}, .ranks = {0}, .extras = true});
}

}  // namespace kernels
