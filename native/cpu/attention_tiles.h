// Products of small blocks that lie in scratch, and the packing that makes them: what the attention kernels are built from.
// Every block is row-major with rows of `ld` floats; widths are whole vectors, padded by whoever packed the block.
#pragma once
#include "rows.h"

namespace lowrank::cpu::LOWRANK_ISA {
namespace {

constexpr int64_t kLanes = HWY_LANES(float);
constexpr int kWidest = HWY_TARGET == HWY_SSSE3 || HWY_TARGET == HWY_SSE4 || HWY_TARGET == HWY_AVX2 ? 2 : 4;  // by number of registers

// Rows of a tile that is N vectors wide: as many sums as registers hold.
constexpr int tile_rows(int n) { return kWidest == 2 ? (n == 2 ? 6 : 12) : n == 4 ? 6 : n == 3 ? 8 : 12; }

constexpr int64_t kStrip = 24;  // rows that are masked and trimmed together: a multiple of every tile_rows

LOWRANK_INLINE constexpr int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }
LOWRANK_INLINE constexpr int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
LOWRANK_INLINE constexpr int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

// C [rows, width] from A [rows, depth] and B [depth, width]; with `across`, A is stored transposed, [depth, rows].
struct Product {
  const float* a;
  int64_t lda;
  const float* b;
  int64_t ldb;
  float* c;
  int64_t ldc;
  int64_t depth;
  const float* factors;  // [rows], for Start::scale
};

enum class Start { zero, keep, scale };  // C = AB, C += AB, C = diag(factors) C + AB

template <int M, int N, Start start, bool across>
void multiply_tile(const Product& p) {
  const RowTag d;
  hn::Vec<RowTag> sum[M][N];
#pragma GCC unroll 12
  for (int m = 0; m < M; ++m) {
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) {
      const float* c = p.c + m * p.ldc + n * kLanes;
      if constexpr (start == Start::zero) sum[m][n] = hn::Zero(d);
      if constexpr (start == Start::keep) sum[m][n] = hn::LoadU(d, c);
      if constexpr (start == Start::scale) sum[m][n] = hn::Mul(hn::LoadU(d, c), hn::Set(d, p.factors[m]));
    }
  }
  const float* a = p.a;
  const float* b = p.b;
  const int64_t lda = p.lda, ldb = p.ldb;
#pragma GCC unroll 2  // 2 to 6 % of attention and its gradient with AVX2; no gain by 4
  for (int64_t k = 0; k < p.depth; ++k) {
    hn::Vec<RowTag> row[N];
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) row[n] = hn::LoadU(d, b + n * kLanes);
#pragma GCC unroll 12
    for (int m = 0; m < M; ++m) {
      const auto v = hn::Set(d, across ? a[m] : a[m * lda]);
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) sum[m][n] = hn::MulAdd(v, row[n], sum[m][n]);
    }
    a += across ? lda : 1;
    b += ldb;
  }
#pragma GCC unroll 12
  for (int m = 0; m < M; ++m) {
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) hn::StoreU(sum[m][n], d, p.c + m * p.ldc + n * kLanes);
  }
}

template <int M, int N, Start start, bool across>
LOWRANK_INLINE void multiply_while(int64_t& rows, Product& p) {
  for (; rows >= M; rows -= M) {
    multiply_tile<M, N, start, across>(p);
    p.a += across ? M : M * p.lda;
    p.c += M * p.ldc;
    if (start == Start::scale) p.factors += M;
  }
}

template <int N, Start start, bool across>
void multiply_panel(int64_t rows, Product p) {
  multiply_while<tile_rows(N), N, start, across>(rows, p);
  multiply_while<4, N, start, across>(rows, p);
  multiply_while<2, N, start, across>(rows, p);
  multiply_while<1, N, start, across>(rows, p);
}

// `width` is a multiple of kLanes; it is cut into panels as equal as can be.
template <Start start, bool across = false>
void multiply(int64_t rows, int64_t width, Product p) {
  int64_t vectors = width / kLanes;
  for (int64_t panels = (vectors + kWidest - 1) / kWidest; panels > 0; --panels) {
    const int64_t n = (vectors + panels - 1) / panels;
    if (n == 1) multiply_panel<1, start, across>(rows, p);
    if (n == 2) multiply_panel<2, start, across>(rows, p);
    if constexpr (kWidest > 2) {
      if (n == 3) multiply_panel<3, start, across>(rows, p);
      if (n == 4) multiply_panel<4, start, across>(rows, p);
    }
    p.b += n * kLanes;
    p.c += n * kLanes;
    vectors -= n;
  }
}

// One row of `size` floats, with zeros up to a whole vector.
LOWRANK_INLINE void pack_row(float* to, const float* from, int64_t size) {
  map_row(size, [&](auto d, int64_t i, auto part) { hn::StoreU(part.load(d, from + i), d, to + i); });
}

// A vector made of 4 numbers each from kLanes/4 rows: its block b is rows[4 b][at..at+3].
template <class D>
LOWRANK_INLINE hn::Vec<D> load_quads(D d, const float* const* rows, int64_t at) {
  if constexpr (hn::MaxLanes(D()) == 4) {
    return hn::LoadU(d, rows[0] + at);
  } else {
    const hn::Half<D> half;
    return hn::Combine(d, load_quads(half, rows + hn::MaxLanes(half), at), load_quads(half, rows, at));
  }
}

// to[i * ld + lane] = factor * rows[lane][i] for i < size, lane < kLanes.
LOWRANK_INLINE void transpose_rows(float* to, int64_t ld, const float* const* rows, int64_t size, float factor) {
  const RowTag d;
  const hn::Repartition<uint64_t, RowTag> d64;
  const auto f = hn::Set(d, factor);
  const auto put = [&](float* at, auto v) { hn::StoreU(hn::Mul(hn::BitCast(d, v), f), d, at); };
  int64_t i = 0;
  for (; i + 4 <= size; i += 4, to += 4 * ld) {
    const auto r0 = load_quads(d, rows, i), r1 = load_quads(d, rows + 1, i);
    const auto r2 = load_quads(d, rows + 2, i), r3 = load_quads(d, rows + 3, i);
    const auto a = hn::BitCast(d64, hn::InterleaveLower(d, r0, r1)), b = hn::BitCast(d64, hn::InterleaveLower(d, r2, r3));
    const auto e = hn::BitCast(d64, hn::InterleaveUpper(d, r0, r1)), g = hn::BitCast(d64, hn::InterleaveUpper(d, r2, r3));
    put(to, hn::InterleaveLower(d64, a, b));
    put(to + ld, hn::InterleaveUpper(d64, a, b));
    put(to + 2 * ld, hn::InterleaveLower(d64, e, g));
    put(to + 3 * ld, hn::InterleaveUpper(d64, e, g));
  }
  for (; i < size; ++i, to += ld)
    for (int lane = 0; lane < kLanes; ++lane) to[lane] = factor * rows[lane][i];
}

// to [size, ld] = factor * (the `count` rows at `from`, `stride` apart)^T. Columns up to a whole vector repeat the last row: finite if it is.
LOWRANK_INLINE void pack_transposed(float* to, int64_t ld, const float* from, int64_t stride, int64_t count, int64_t size, float factor) {
  for (int64_t j = 0; j < count; j += kLanes) {
    const float* rows[kLanes];
    for (int64_t lane = 0; lane < kLanes; ++lane) rows[lane] = from + least(j + lane, count - 1) * stride;
    transpose_rows(to + j, ld, rows, size, factor);
  }
}

// Lane i: the sum of vectors[i].
LOWRANK_INLINE hn::Vec<RowTag> sums_of_lanes(RowTag d, const float* vectors) {
  const hn::Repartition<uint64_t, RowTag> d64;
  // Four vectors: block b holds the sums of block b of each.
  const auto fold4 = [&](const float* p) {
    const auto a = hn::Load(d, p), b = hn::Load(d, p + kLanes), c = hn::Load(d, p + 2 * kLanes), e = hn::Load(d, p + 3 * kLanes);
    const auto ab = hn::BitCast(d64, hn::Add(hn::InterleaveLower(d, a, b), hn::InterleaveUpper(d, a, b)));
    const auto ce = hn::BitCast(d64, hn::Add(hn::InterleaveLower(d, c, e), hn::InterleaveUpper(d, c, e)));
    return hn::Add(hn::BitCast(d, hn::InterleaveLower(d64, ab, ce)), hn::BitCast(d, hn::InterleaveUpper(d64, ab, ce)));
  };
  const auto fold_halves = [&](auto low, auto high) { return hn::Add(hn::ConcatLowerLower(d, high, low), hn::ConcatUpperUpper(d, high, low)); };
  if constexpr (kLanes == 4) return fold4(vectors);
  if constexpr (kLanes == 8) return fold_halves(fold4(vectors), fold4(vectors + 4 * kLanes));
  if constexpr (kLanes == 16) {
    const auto even = fold_halves(fold4(vectors), fold4(vectors + 8 * kLanes));
    const auto odd = fold_halves(fold4(vectors + 4 * kLanes), fold4(vectors + 12 * kLanes));
    return hn::OddEvenBlocks(hn::Add(odd, hn::SwapAdjacentBlocks(odd)), hn::Add(even, hn::SwapAdjacentBlocks(even)));
  }
}

// products[m][lane] = partial sums of the dot product of row `lane` with a[m].
template <int M>
LOWRANK_INLINE void dot_lanes(float* products, const float* a, int64_t lda, const float* const* rows, int64_t width) {
  const RowTag d;
  for (int64_t lane = 0; lane < kLanes; ++lane) {
    hn::Vec<RowTag> sum[M];
    for (int m = 0; m < M; ++m) sum[m] = hn::Zero(d);
    for (int64_t i = 0; i < width; i += kLanes) {
      const auto v = hn::LoadU(d, rows[lane] + i);
      for (int m = 0; m < M; ++m) sum[m] = hn::MulAdd(v, hn::LoadU(d, a + m * lda + i), sum[m]);
    }
    for (int m = 0; m < M; ++m) hn::Store(sum[m], d, products + (m * kLanes + lane) * kLanes);
  }
}

// C [rows, count rounded up] = factor * A [rows, width] B^T for a few rows of A, with B [count, width] read once and where it lies. Columns
// beyond `count` repeat the last one.
template <int M>
LOWRANK_INLINE void multiply_rows_of(float* c, int64_t ldc, const float* a, int64_t lda, const float* b, int64_t ldb, int64_t count, int64_t width, float factor) {
  const RowTag d;
  HWY_ALIGN float products[M * kLanes * kLanes];
  for (int64_t j = 0; j < count; j += kLanes) {
    const float* rows[kLanes];
    for (int64_t lane = 0; lane < kLanes; ++lane) rows[lane] = b + least(j + lane, count - 1) * ldb;
    dot_lanes<M>(products, a, lda, rows, width);
    for (int m = 0; m < M; ++m)
      hn::StoreU(hn::Mul(sums_of_lanes(d, products + m * kLanes * kLanes), hn::Set(d, factor)), d, c + m * ldc + j);
  }
}

// x, or `least` where that is more; NaN stays NaN. x86's maximum gives its second operand where one is NaN, Arm's the number.
template <class V>
LOWRANK_INLINE V no_less(RowTag d, V x, float least) {
  const auto bound = hn::Set(d, least);
#if HWY_ARCH_X86
  return hn::Max(bound, x);
#else
  return hn::IfThenElse(hn::Lt(x, bound), bound, x);
#endif
}

// 2^x for x <= 0, within 1.8e-7 of its value, exact at 0; below 2^-126 it stays there; NaN stays NaN. Scores are kept in units of ln 2 (the
// factor rides along when keys are packed), which leaves half the work of exp_f32.
template <class V>
LOWRANK_INLINE V exp2_of_negative(RowTag d, V x) {
  const hn::RebindToSigned<RowTag> di;
  const auto magic = hn::Set(d, 12582912.0f);  // 1.5 * 2^23: the sum's low bits are round(x)
  x = no_less(d, x, -126.0f);
  const auto shifted = hn::Add(x, magic);
  const auto r = hn::Sub(x, hn::Sub(shifted, magic));
  auto p = hn::MulAdd(hn::Set(d, 1.32647273e-3f), r, hn::Set(d, 9.67151299e-3f));
  p = hn::MulAdd(p, r, hn::Set(d, 5.55073358e-2f));
  p = hn::MulAdd(p, r, hn::Set(d, 2.40222424e-1f));
  p = hn::MulAdd(p, r, hn::Set(d, 6.93147004e-1f));
  p = hn::MulAdd(p, r, hn::Set(d, 1.0f));
  return hn::BitCast(d, hn::Add(hn::BitCast(di, p), hn::ShiftLeft<23>(hn::BitCast(di, shifted))));
}

// Lanes of the vector at column `at` that lie in [first, end).
LOWRANK_INLINE hn::Mask<RowTag> lanes_within(RowTag d, int64_t at, int64_t first, int64_t end) {
  const auto until = hn::FirstN(d, static_cast<size_t>(least(most(end - at, 0), kLanes)));
  return hn::AndNot(hn::FirstN(d, static_cast<size_t>(least(most(first - at, 0), kLanes))), until);
}

}  // namespace
}  // namespace lowrank::cpu::LOWRANK_ISA
