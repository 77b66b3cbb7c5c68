#include "gemv.h"

namespace lowrank::cpu::LOWRANK_ISA {

namespace {

using D = hn::ScalableTag<float>;
using V = hn::Vec<D>;

// Bytes of W a task reads at least where a column of W lies in one piece.
constexpr int64_t kTaskBytes = 64 << 10;
// Columns of a task where W's rows do: their sums stay in the first-level cache.
constexpr int64_t kLeastCols = 128, kMostCols = 1024;
// Rows of W that are asked for ahead: each is a short piece, too short for the processor to guess the next.
constexpr int64_t kAhead = 8;

float low_rank(const Gemv& gemv, int64_t row, int64_t n) {
  if (gemv.rank == 0) return 0.0f;
  const float* u = gemv.u + row * gemv.u_pitch;
  const float* b = gemv.b + n * gemv.rank;
  return sum_of(gemv.rank, [&](auto d, int64_t i, auto part) { return hn::Mul(part.load(d, u + i), part.load(d, b + i)); });
}

void finish(const Gemv& gemv, int64_t row, int64_t n, float sum) {
  float* y = gemv.y + row * gemv.y_pitch + n;
  sum = sum * gemv.scale + low_rank(gemv, row, n);
  if (gemv.bias != nullptr) sum += gemv.bias[n];
  if (gemv.carry != nullptr) sum += gemv.carry[row * gemv.y_pitch + n];
  *y = sum;
}

// Sums over k of `few` rows of x times `wide` columns of W, each of which lies in one piece; `chains` sums overlap for each.
// The lines at the same place of the next columns are asked for: columns are short pieces when k is small.
template <class T, int few, int wide, int chains>
void dot_some(const Gemv& gemv, int64_t n) {
  const D d;
  const T* w[wide];
  for (int i = 0; i < wide; ++i) w[i] = static_cast<const T*>(gemv.w.data) + (n + i < gemv.n ? n + i : n) * gemv.w.pitch;
  V sum[wide][few][chains];
  for (int c = 0; c < chains; ++c)
    for (int m = 0; m < few; ++m)
      for (int i = 0; i < wide; ++i) sum[i][m][c] = hn::Zero(d);
  int64_t k = 0;
  for (; k + chains * kLanes <= gemv.k; k += chains * kLanes) {
    HWY_UNROLL(4)
    for (int i = 0; i < wide; ++i) {
      __builtin_prefetch(w[i] + wide * gemv.w.pitch + k, 0, 2);
      HWY_UNROLL(4)
      for (int c = 0; c < chains; ++c) {
        const V v = load_f32(d, w[i] + k + c * kLanes);
        HWY_UNROLL(4)
        for (int m = 0; m < few; ++m) sum[i][m][c] = hn::MulAdd(v, hn::LoadU(d, gemv.x + m * gemv.x_pitch + k + c * kLanes), sum[i][m][c]);
      }
    }
  }
  for (; k < gemv.k; k += kLanes) {
    const int64_t left = gemv.k - k < kLanes ? gemv.k - k : kLanes;
    for (int i = 0; i < wide; ++i) {
      const V v = load_f32_n(d, w[i] + k, left);
      for (int m = 0; m < few; ++m) sum[i][m][0] = hn::MulAdd(v, load_f32_n(d, gemv.x + m * gemv.x_pitch + k, left), sum[i][m][0]);
    }
  }
  for (int i = 0; i < wide && n + i < gemv.n; ++i)
    for (int m = 0; m < few; ++m) {
      V all = sum[i][m][0];
      for (int c = 1; c < chains; ++c) all = hn::Add(all, sum[i][m][c]);
      finish(gemv, m, n + i, hn::GetLane(hn::SumOfLanes(d, all)));
    }
}

// Registers: wide * few * chains sums are 8, or 6.
template <class T>
void run_dots(const Gemv& gemv, int64_t n0, int64_t cols) {
  const int64_t wide = gemv.m <= 2 ? 4 : 2;
  for (int64_t n = n0; n < n0 + cols; n += wide) switch (gemv.m) {
    case 1: dot_some<T, 1, 4, 2>(gemv, n); break;
    case 2: dot_some<T, 2, 4, 1>(gemv, n); break;
    case 3: dot_some<T, 3, 2, 1>(gemv, n); break;
    default: dot_some<T, 4, 2, 1>(gemv, n); break;
  }
}

// Adds four rows of W, from row k on, times their x, to the sums of `few` rows of y.
template <class T, int few>
LOWRANK_INLINE void add_four(const Gemv& gemv, int64_t k, int64_t n0, int64_t cols, float* sums) {
  const D d;
  const T* w = static_cast<const T*>(gemv.w.data) + k * gemv.w.pitch + n0;
  const int64_t pitch = gemv.w.pitch;
  V x[few][4];
  HWY_UNROLL(4)
  for (int m = 0; m < few; ++m) {
    HWY_UNROLL(4)
    for (int i = 0; i < 4; ++i) x[m][i] = hn::Set(d, gemv.x[m * gemv.x_pitch + k + i]);
  }
  for (int64_t n = 0; n + kLanes <= cols; n += kLanes) {
    V v[4];
    HWY_UNROLL(4)
    for (int i = 0; i < 4; ++i) {
      v[i] = load_f32(d, w + i * pitch + n);
      __builtin_prefetch(w + (i + kAhead) * pitch + n);
    }
    HWY_UNROLL(4)
    for (int m = 0; m < few; ++m) {
      float* sum = sums + m * kMostCols + n;
      V s = hn::Load(d, sum);
      HWY_UNROLL(4)
      for (int i = 0; i < 4; ++i) s = hn::MulAdd(x[m][i], v[i], s);
      hn::Store(s, d, sum);
    }
  }
}

// What add_four leaves: rows from k on by all columns, and the last `cols % kLanes` columns of the rows before.
template <class T>
void add_rest(const Gemv& gemv, int64_t k, int64_t n0, int64_t cols, float* sums) {
  const D d;
  const int64_t whole = cols / kLanes * kLanes;
  for (int64_t i = 0; i < gemv.k; ++i) {
    const T* w = static_cast<const T*>(gemv.w.data) + i * gemv.w.pitch + n0;
    for (int64_t n = i < k ? whole : 0; n < cols; n += kLanes) {
      const V v = load_f32_n(d, w + n, cols - n < kLanes ? cols - n : kLanes);
      for (int64_t m = 0; m < gemv.m; ++m) {
        float* sum = sums + m * kMostCols + n;
        hn::Store(hn::MulAdd(hn::Set(d, gemv.x[m * gemv.x_pitch + i]), v, hn::Load(d, sum)), d, sum);
      }
    }
  }
}

template <class T>
void run_sums(const Gemv& gemv, int64_t n0, int64_t cols) {
  HWY_ALIGN float sums[kGemvRows * kMostCols];
  memset(sums, 0, sizeof sums);
  const int64_t fours = gemv.k / 4 * 4;
  for (int64_t k = 0; k < fours; k += 4) switch (gemv.m) {
    case 1: add_four<T, 1>(gemv, k, n0, cols, sums); break;
    case 2: add_four<T, 2>(gemv, k, n0, cols, sums); break;
    case 3: add_four<T, 3>(gemv, k, n0, cols, sums); break;
    default: add_four<T, 4>(gemv, k, n0, cols, sums); break;
  }
  if (fours < gemv.k || cols % kLanes != 0) add_rest<T>(gemv, fours, n0, cols, sums);
  for (int64_t m = 0; m < gemv.m; ++m)
    for (int64_t n = 0; n < cols; ++n) finish(gemv, m, n0 + n, sums[m * kMostCols + n]);
}

// Columns of a task, a multiple of 4.
int64_t task_cols(const Gemv& gemv) {
  if (gemv.w.lie == Lie::columns) return (kTaskBytes / (gemv.k * size_of(gemv.w.dtype) + 1) + 4) / 4 * 4;
  const int64_t cols = (gemv.n / 8 + kLanes - 1) / kLanes * kLanes;
  return cols < kLeastCols ? kLeastCols : cols > kMostCols ? kMostCols : cols;
}

void run_part(const Gemv& gemv, int64_t n0, int64_t cols) {
  with_float_type(gemv.w.dtype, [&](auto type) {
    using T = typename decltype(type)::Stored;
    if (gemv.w.lie == Lie::columns) return run_dots<T>(gemv, n0, cols);
    run_sums<T>(gemv, n0, cols);
  });
}

}  // namespace

void multiply_few(const Context& context, const Gemv* gemvs, int count) {
  if (count == 0 || gemvs[0].m == 0) return;
  int64_t all = 0;
  for (int g = 0; g < count; ++g) all += (gemvs[g].n + task_cols(gemvs[g]) - 1) / task_cols(gemvs[g]);
  context.parallel_for(all, [&](int64_t task, int) {
    for (int g = 0; g < count; ++g) {
      const int64_t cols = task_cols(gemvs[g]), tasks = (gemvs[g].n + cols - 1) / cols;
      if (task < tasks) return run_part(gemvs[g], task * cols, gemvs[g].n - task * cols < cols ? gemvs[g].n - task * cols : cols);
      task -= tasks;
    }
  });
}

}  // namespace lowrank::cpu::LOWRANK_ISA
