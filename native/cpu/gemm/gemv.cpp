#include "gemv.h"

namespace lowrank::cpu::LOWRANK_ISA {

namespace {

using D = hn::ScalableTag<float>;
using V = hn::Vec<D>;

// Rows of x that go through the registers together.
constexpr int kBlockRows = HWY_TARGET <= HWY_AVX3 ? 8 : 4;
// Columns whose sums are finished together: a multiple of every group of columns, and of a vector.
constexpr int64_t kChunk = 48;
// Floats from one row of such sums to the next: a group of three columns is stored as four.
constexpr int64_t kSumPitch = kChunk + 16;
// Bytes of W that a task reads where a column of W lies in one piece, and how far ahead of the reading they are asked for.
constexpr int64_t kTaskBytes = 128 << 10, kAheadBytes = 8 << 10;
// Columns of a task where W's rows lie in one piece: the sums stay in the first-level cache.
constexpr int64_t kLeastCols = 128, kMostCols = 1024, kMostSums = 8192;
// Rows of W that are asked for ahead there: each is a short piece, too short for the processor to guess the next.
constexpr int64_t kAhead = 8;

int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

// The first n < kLanes numbers. Masked loads touch nothing beyond, where the processor has them.
template <class T>
LOWRANK_INLINE V load_tail(D d, const T* p, int64_t n) {
#if HWY_TARGET <= HWY_AVX2
  if constexpr (sizeof(T) == sizeof(float)) return hn::MaskedLoad(hn::FirstN(d, static_cast<size_t>(n)), d, p);
#endif
  return load_f32_n(d, p, n);
}

// Columns of a matrix [k, n], each in one piece, and the rows they are multiplied with.
template <class T>
struct Dots {
  const T* w;
  int64_t pitch;
  const float* x;
  int64_t x_pitch, k;
  int64_t ahead;  // elements from a column to the one that is asked for meanwhile
};

// sum[i][m][c] += parts of x_m . w_i for `few` rows and `wide` columns; `chains` sums of each overlap.
template <class T, int few, int wide, int chains>
LOWRANK_INLINE void add_dots(const Dots<T>& dots, int64_t cols, V (&sum)[wide][few][chains]) {
  const D d;
  const T* w[wide];
  for (int i = 0; i < wide; ++i) w[i] = dots.w + (i < cols ? i : 0) * dots.pitch;
  int64_t k = 0;
  for (; k + chains * kLanes <= dots.k; k += chains * kLanes) {
#pragma GCC unroll 4
    for (int c = 0; c < chains; ++c) {
      V v[wide];
#pragma GCC unroll 4
      for (int i = 0; i < wide; ++i) {
        if (c == 0) __builtin_prefetch(w[i] + dots.ahead + k, 0, 2);
        v[i] = load_f32(d, w[i] + k + c * kLanes);
      }
#pragma GCC unroll 8
      for (int m = 0; m < few; ++m) {
        const V x = hn::LoadU(d, dots.x + m * dots.x_pitch + k + c * kLanes);
#pragma GCC unroll 4
        for (int i = 0; i < wide; ++i) sum[i][m][c] = hn::MulAdd(v[i], x, sum[i][m][c]);
      }
    }
  }
  for (; k < dots.k; k += kLanes) {
    const int64_t left = dots.k - k;
    V v[wide];
#pragma GCC unroll 4
    for (int i = 0; i < wide; ++i) v[i] = left < kLanes ? load_tail(d, w[i] + k, left) : load_f32(d, w[i] + k);
#pragma GCC unroll 8
    for (int m = 0; m < few; ++m) {
      const float* from = dots.x + m * dots.x_pitch + k;
      const V x = left < kLanes ? load_tail(d, from, left) : hn::LoadU(d, from);
#pragma GCC unroll 4
      for (int i = 0; i < wide; ++i) sum[i][m][0] = hn::MulAdd(v[i], x, sum[i][m][0]);
    }
  }
}

template <class Half>
LOWRANK_INLINE auto add_blocks([[maybe_unused]] Half d, hn::Vec<Half> v) {
  if constexpr (hn::MaxLanes(Half()) == 4) {
    return v;
  } else {
    const hn::Half<Half> half;
    return add_blocks(half, hn::Add(hn::LowerHalf(half, v), hn::UpperHalf(half, v)));
  }
}

// to[i] = the sum of v[i]'s lanes, i < 4.
LOWRANK_INLINE void store_sums(D d, const V (&v)[4], float* to) {
  const hn::Repartition<uint64_t, D> wide;
  const auto a = hn::BitCast(wide, hn::Add(hn::InterleaveLower(d, v[0], v[1]), hn::InterleaveUpper(d, v[0], v[1])));
  const auto b = hn::BitCast(wide, hn::Add(hn::InterleaveLower(d, v[2], v[3]), hn::InterleaveUpper(d, v[2], v[3])));
  const V sums = hn::Add(hn::BitCast(d, hn::InterleaveLower(wide, a, b)), hn::BitCast(d, hn::InterleaveUpper(wide, a, b)));
  const hn::Full128<float> four;
  hn::StoreU(add_blocks(d, sums), four, to);
}

// Sums of a block of rows by up to kChunk columns.
struct Sums {
  HWY_ALIGN float at[kBlockRows * kSumPitch];
};

// The sums of `few` rows and `wide` columns from column n on: x W, then u B^T in the same registers.
template <class T, int few, int wide, int chains>
LOWRANK_INLINE void dot_group(const Dots<T>& w, const Dots<float>& b, int64_t cols, float* sums) {
  const D d;
  V sum[wide][few][chains];
#pragma GCC unroll 4
  for (int i = 0; i < wide; ++i)
#pragma GCC unroll 8
    for (int m = 0; m < few; ++m)
#pragma GCC unroll 4
      for (int c = 0; c < chains; ++c) sum[i][m][c] = hn::Zero(d);
  add_dots<T, few, wide, chains>(w, cols, sum);
  if (b.k > 0) add_dots<float, few, wide, chains>(b, cols, sum);
#pragma GCC unroll 8
  for (int m = 0; m < few; ++m) {
    V four[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      four[i] = i < wide ? sum[i < wide ? i : 0][m][0] : hn::Zero(d);
#pragma GCC unroll 4
      for (int c = 1; c < chains; ++c) four[i] = i < wide ? hn::Add(four[i], sum[i < wide ? i : 0][m][c]) : four[i];
    }
    store_sums(d, four, sums + m * kSumPitch);
  }
}

template <class T, int few, int wide, int chains>
void dot_chunk(Dots<T> w, Dots<float> b, int64_t cols, float* sums) {
  for (int64_t n = 0; n < cols; n += wide, w.w += wide * w.pitch, b.w += wide * b.pitch, sums += wide)
    dot_group<T, few, wide, chains>(w, b, cols - n, sums);
}

// Registers: few * wide * chains sums, `wide` of W, one of x; 32 of them with AVX-512, 16 before.
template <class T>
void dot_block(int64_t rows, const Dots<T>& w, const Dots<float>& b, int64_t cols, float* sums) {
  if constexpr (kBlockRows == 8) {
    switch (rows) {
      case 1: return dot_chunk<T, 1, 4, 2>(w, b, cols, sums);
      case 2: return dot_chunk<T, 2, 4, 1>(w, b, cols, sums);
      case 3: return dot_chunk<T, 3, 4, 1>(w, b, cols, sums);
      case 4: return dot_chunk<T, 4, 4, 1>(w, b, cols, sums);
      case 5: return dot_chunk<T, 5, 4, 1>(w, b, cols, sums);
      case 6: return dot_chunk<T, 6, 4, 1>(w, b, cols, sums);
      case 7: return dot_chunk<T, 7, 3, 1>(w, b, cols, sums);
      default: return dot_chunk<T, 8, 3, 1>(w, b, cols, sums);
    }
  } else {
    switch (rows) {
      case 1: return dot_chunk<T, 1, 4, 2>(w, b, cols, sums);
      case 2: return dot_chunk<T, 2, 4, 1>(w, b, cols, sums);
      case 3: return dot_chunk<T, 3, 3, 1>(w, b, cols, sums);
      default: return dot_chunk<T, 4, 3, 1>(w, b, cols, sums);
    }
  }
}

// y of one row, from column n on, out of sums.
LOWRANK_INLINE void finish(const Gemv& gemv, int64_t row, int64_t n, int64_t cols, const float* sums) {
  float* y = gemv.y + row * gemv.y_pitch + n;
  const float* carry = gemv.carry == nullptr ? nullptr : gemv.carry + row * gemv.y_pitch + n;
  map_row(cols, [&](auto d, int64_t i, auto part) {
    auto v = hn::Mul(hn::LoadU(d, sums + i), hn::Set(d, gemv.scale));
    if (gemv.bias != nullptr) v = hn::Add(v, part.load(d, gemv.bias + n + i));
    if (carry != nullptr) v = hn::Add(v, part.load(d, carry + i));
    part.store(v, d, y + i);
  });
}

// Rows are cut into blocks as equal as can be.
LOWRANK_INLINE int64_t block_count(int64_t rows) { return (rows + kBlockRows - 1) / kBlockRows; }
LOWRANK_INLINE int64_t block_begin(int64_t rows, int64_t i) { return rows * i / block_count(rows); }

Dots<float> low_rank(const Gemv& gemv, int64_t row, int64_t n) {
  if (gemv.rank == 0) return {nullptr, 0, nullptr, 0, 0, 0};
  return {gemv.b + n * gemv.rank, gemv.rank, gemv.u + row * gemv.u_pitch, gemv.u_pitch, gemv.rank, 0};
}

// Columns [n0, n0 + cols) where a column of W lies in one piece. A chunk of W is read from memory for the first rows, and
// from the cache for the others.
template <class T>
void run_dots(const Gemv& gemv, int64_t n0, int64_t cols) {
  Sums sums;
  const int64_t pitch = gemv.w.pitch, ahead = (kAheadBytes / (pitch * static_cast<int64_t>(sizeof(T)) + 1) + 1) * pitch;
  for (int64_t n = n0; n < n0 + cols; n += kChunk) {
    const int64_t chunk = least(kChunk, n0 + cols - n);
    for (int64_t i = 0; i < block_count(gemv.m); ++i) {
      const int64_t row = block_begin(gemv.m, i), rows = block_begin(gemv.m, i + 1) - row;
      const Dots<T> w{static_cast<const T*>(gemv.w.data) + n * pitch, pitch, gemv.x + row * gemv.x_pitch, gemv.x_pitch, gemv.k, i == 0 ? ahead : 0};
      dot_block<T>(rows, w, low_rank(gemv, row, n), chunk, sums.at);
      for (int64_t m = 0; m < rows; ++m) finish(gemv, row + m, n, chunk, sums.at + m * kSumPitch);
    }
  }
}

// Adds four rows of W, from row k on, times their x, to the sums of `few` rows of y from `row` on.
template <class T, int few>
LOWRANK_INLINE void add_four(const Gemv& gemv, int64_t row, int64_t k, int64_t n0, int64_t cols, float* sums) {
  const D d;
  const T* w = static_cast<const T*>(gemv.w.data) + k * gemv.w.pitch + n0;
  const int64_t pitch = gemv.w.pitch;
  V x[few][4];
#pragma GCC unroll 8
  for (int m = 0; m < few; ++m)
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) x[m][i] = hn::Set(d, gemv.x[(row + m) * gemv.x_pitch + k + i]);
  for (int64_t n = 0; n + kLanes <= cols; n += kLanes) {
    V v[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      v[i] = load_f32(d, w + i * pitch + n);
      if (row == 0) __builtin_prefetch(w + (i + kAhead) * pitch + n);
    }
#pragma GCC unroll 8
    for (int m = 0; m < few; ++m) {
      float* sum = sums + (row + m) * cols + n;
      V s = hn::LoadU(d, sum);
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) s = hn::MulAdd(x[m][i], v[i], s);
      hn::StoreU(s, d, sum);
    }
  }
}

template <class T>
void add_four_rows(const Gemv& gemv, int64_t row, int64_t rows, int64_t k, int64_t n0, int64_t cols, float* sums) {
  switch (rows) {
    case 1: return add_four<T, 1>(gemv, row, k, n0, cols, sums);
    case 2: return add_four<T, 2>(gemv, row, k, n0, cols, sums);
    case 3: return add_four<T, 3>(gemv, row, k, n0, cols, sums);
    default: return add_four<T, 4>(gemv, row, k, n0, cols, sums);
  }
}

// What add_four leaves: rows from k on by all columns, and the last `cols % kLanes` columns of the rows before.
template <class T>
void add_rest(const Gemv& gemv, int64_t k, int64_t n0, int64_t cols, float* sums) {
  const int64_t whole = cols / kLanes * kLanes;
  for (int64_t i = 0; i < gemv.k; ++i) {
    const T* w = static_cast<const T*>(gemv.w.data) + i * gemv.w.pitch + n0;
    for (int64_t m = 0; m < gemv.m; ++m) {
      const float x = gemv.x[m * gemv.x_pitch + i];
      const int64_t first = i < k ? whole : 0;
      float* sum = sums + m * cols + first;
      map_row(cols - first, [&](auto d, int64_t n, auto part) {
        part.store(hn::MulAdd(hn::Set(d, x), part.load(d, w + first + n), part.load(d, sum + n)), d, sum + n);
      });
    }
  }
}

// The low-rank term of columns [n0, n0 + cols): B's columns lie in one piece whatever W's do.
void add_low_rank(const Gemv& gemv, int64_t n0, int64_t cols, float* sums) {
  Sums more;
  for (int64_t n = 0; n < cols; n += kChunk) {
    const int64_t chunk = least(kChunk, cols - n);
    for (int64_t i = 0; i < block_count(gemv.m); ++i) {
      const int64_t row = block_begin(gemv.m, i), rows = block_begin(gemv.m, i + 1) - row;
      dot_block<float>(rows, low_rank(gemv, row, n0 + n), {nullptr, 0, nullptr, 0, 0, 0}, chunk, more.at);
      for (int64_t m = 0; m < rows; ++m)
        for (int64_t c = 0; c < chunk; ++c) sums[(row + m) * cols + n + c] += more.at[m * kSumPitch + c];
    }
  }
}

// Columns [n0, n0 + cols) where the rows of W do; sums is [m, cols] and a vector.
template <class T>
void run_sums(const Gemv& gemv, int64_t n0, int64_t cols) {
  HWY_ALIGN float sums[kMostSums + kLanes];
  memset(sums, 0, static_cast<size_t>(gemv.m * cols) * sizeof(float));
  const int64_t fours = gemv.k / 4 * 4;
  for (int64_t k = 0; k < fours; k += 4)
    for (int64_t row = 0; row < gemv.m; row += 4) add_four_rows<T>(gemv, row, least(4, gemv.m - row), k, n0, cols, sums);
  if (fours < gemv.k || cols % kLanes != 0) add_rest<T>(gemv, fours, n0, cols, sums);
  if (gemv.rank > 0) add_low_rank(gemv, n0, cols, sums);
  for (int64_t m = 0; m < gemv.m; ++m) finish(gemv, m, n0, cols, sums + m * cols);
}

// Columns of a task: whole chunks, or whole vectors of rows that stay in the cache.
int64_t task_cols(const Gemv& gemv) {
  if (gemv.w.lie == Lie::columns) return (kTaskBytes / (gemv.k * size_of(gemv.w.dtype) + 1) / kChunk + 1) * kChunk;
  const int64_t share = (gemv.n / 8 + kLanes - 1) / kLanes * kLanes, most = least(kMostCols, kMostSums / gemv.m / kLeastCols * kLeastCols);
  return share < kLeastCols ? kLeastCols : least(share, most);
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
      if (task < tasks) return run_part(gemvs[g], task * cols, least(gemvs[g].n - task * cols, cols));
      task -= tasks;
    }
  });
}

}  // namespace lowrank::cpu::LOWRANK_ISA
