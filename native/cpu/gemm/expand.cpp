// B on its way: a block of a stored matrix into the micro-kernel's panels, as f32 or as bf16 pairs.
#include "plan.h"
#include "words.h"

namespace lowrank::cpu::LOWRANK_ISA {

namespace {

// How far ahead lines are asked for. Pieces of rows are shorter than what the processor needs to guess the rest.
constexpr int64_t kRowsAhead = 8;
constexpr int64_t kLinesAhead = 4;

LOWRANK_INLINE void ask_for(const void* begin, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(static_cast<const char*>(begin) + i);
}

// --- B as it lies, [k, N] ------------------------------------------------------------------------------------------------

// One row of the block's panels: at(part, n) makes the words of columns [n, n + kLanes), or of as many as `part` has.
template <class At>
LOWRANK_INLINE void spread_row(const Block& block, int64_t to, const At& at) {
  const FloatTag d;
  int64_t n = 0;
  float* panel = block.panels + to * kTileCols;
  for (; n + kTileCols <= block.cols; n += kTileCols, panel += block.depth * kTileCols) {
    HWY_UNROLL(2)
    for (int v = 0; v < kTileVectors; ++v) hn::Store(at(Whole{}, n + v * kLanes), d, panel + v * kLanes);
  }
  if (n == block.cols) return;
  panel = block.at(n / kTileCols, to);
  for (; n + kLanes <= block.cols; n += kLanes, panel += kLanes) hn::Store(at(Whole{}, n), d, panel);
  if (n < block.cols) hn::Store(at(Ragged{block.cols - n}, n), d, panel);
}

template <class T>
void expand_rows(const Right& right, int64_t k0, int64_t k, int64_t n0, const Block& block, int64_t to) {
  const T* row = static_cast<const T*>(right.data) + k0 * right.pitch + n0;
  for (int64_t i = 0; i < k; ++i, row += right.pitch) {
    if (i + kRowsAhead < k) ask_for(row + kRowsAhead * right.pitch, block.cols * static_cast<int64_t>(sizeof(T)));
    spread_row(block, to + i, [&](auto part, int64_t n) { return part.load(FloatTag(), row + n); });
  }
}

// Rows k and k + 1 side by side; `second` is nullptr below the last row.
template <class T, class Part>
LOWRANK_INLINE FloatVec pair_rows(const Part& part, const T* first, const T* second) {
  const FloatTag d;
  return hn::BitCast(d, pairs_from(T(), part.load(d, first), second != nullptr ? part.load(d, second) : hn::Zero(d)));
}

template <class T>
void pair_up_rows(const Right& right, int64_t k0, int64_t k, int64_t n0, const Block& block, int64_t to) {
  const T* row = static_cast<const T*>(right.data) + k0 * right.pitch + n0;
  for (int64_t i = 0; i < k; i += 2, row += 2 * right.pitch) {
    for (int64_t next = i + kRowsAhead; next < i + kRowsAhead + 2 && next < k; ++next)
      ask_for(row + (next - i) * right.pitch, block.cols * static_cast<int64_t>(sizeof(T)));
    const T* second = i + 1 < k ? row + right.pitch : nullptr;
    spread_row(block, to + i / 2, [&](auto part, int64_t n) { return pair_rows(part, row + n, second == nullptr ? nullptr : second + n); });
  }
}

// --- B as its transpose lies, [N, k] ---------------------------------------------------------------------------------------

// v[i]: words of chunk `i` of k (see WordsOf), each lane a column; stored as f32, one vector for each k below n.
template <class T, bool whole>
LOWRANK_INLINE void store_f32(const WordVec (&v)[kLanes], int64_t n, float* to, int64_t step) {
  constexpr int64_t per = WordsOf<T>::per;
  HWY_UNROLL(16)
  for (int i = 0; i < kLanes; ++i) {
    float* at = to + i * per * step;
    if (whole || i * per < n) hn::Store(numbers<0>(T(), v[i]), FloatTag(), at);
    if constexpr (per == 2) {
      if (whole || 2 * i + 1 < n) hn::Store(numbers<1>(T(), v[i]), FloatTag(), at + step);
    }
  }
}

// The same as bf16 pairs, one vector for two k. What lies beyond n is zero.
template <class T, bool whole>
LOWRANK_INLINE void store_pairs(const WordVec (&v)[kLanes], int64_t n, float* to, int64_t step) {
  constexpr int per = WordsOf<T>::per, words = kLanes * per / 2;
  HWY_UNROLL(16)
  for (int i = 0; i < words; ++i) {
    if (!whole && 2 * i >= n) return;
    WordVec pair;
    if constexpr (per == 2) {
      pair = pairs_of_words(T(), v[i]);
    } else {
      pair = pairs_of(numbers<0>(T(), v[2 * i]), numbers<0>(T(), v[2 * i + 1]));
    }
    hn::Store(hn::BitCast(FloatTag(), pair), FloatTag(), to + i * step);
  }
}

// kLanes rows of W, of which `rows` exist, by WordsOf<T>::chunk numbers of which n exist: to vectors `step` floats apart.
template <class T, Words as, bool whole>
LOWRANK_INLINE void expand_chunk(const T* w, int64_t pitch, int64_t rows, int64_t n, float* to, int64_t step) {
  WordVec v[kLanes];
  HWY_UNROLL(16)
  for (int i = 0; i < kLanes; ++i) {
    if constexpr (whole) {
      v[i] = WordsOf<T>::load(w + i * pitch);
      __builtin_prefetch(reinterpret_cast<const char*>(w + i * pitch) + kLinesAhead * 64);
    } else {
      v[i] = i < rows ? WordsOf<T>::load_n(w + i * pitch, n) : hn::Zero(WordTag());
    }
  }
  transpose(WordTag(), v);
  if constexpr (as == Words::f32) {
    store_f32<T, whole>(v, n, to, step);
  } else {
    store_pairs<T, whole>(v, n, to, step);
  }
}

template <class T, Words as>
void expand_columns(const Right& right, int64_t k0, int64_t k, int64_t n0, const Block& block, int64_t to) {
  constexpr int64_t chunk = WordsOf<T>::chunk, share = as == Words::f32 ? 1 : 2;  // k in a row of the block
  for (int64_t n = 0; n < block.cols; n += kLanes) {
    const int64_t panel = n / kTileCols, rows = block.cols - n < kLanes ? block.cols - n : kLanes;
    const int64_t step = block.vectors(panel) * kLanes;
    const T* w = static_cast<const T*>(right.data) + (n0 + n) * right.pitch + k0;
    float* at = block.at(panel, to) + n % kTileCols;
    int64_t i = 0;
    if (rows == kLanes)
      for (; i + chunk <= k; i += chunk) expand_chunk<T, as, true>(w + i, right.pitch, kLanes, chunk, at + i / share * step, step);
    for (; i < k; i += chunk) {
      const int64_t left = k - i < chunk ? k - i : chunk;
      expand_chunk<T, as, false>(w + i, right.pitch, rows, left, at + i / share * step, step);
    }
  }
}

void clear_rows(const Block& block, int64_t begin, int64_t end) {
  for (int64_t panel = 0; panel < block.count(); ++panel)
    for (float* at = block.at(panel, begin); at < block.at(panel, end); at += kLanes) hn::Store(hn::Zero(FloatTag()), FloatTag(), at);
}

}  // namespace

void expand_right(const Right& right, int64_t k0, int64_t k, int64_t n0, const Block& block, int64_t to) {
  with_float_type(right.dtype, [&](auto type) {
    using T = typename decltype(type)::Stored;
    if (right.lie == Lie::rows) return expand_rows<T>(right, k0, k, n0, block, to);
    expand_columns<T, Words::f32>(right, k0, k, n0, block, to);
  });
}

void pair_up_right(const Right& right, int64_t k0, int64_t k, int64_t n0, const Block& block, int64_t end) {
  clear_rows(block, count_words(Words::bf16_pairs, k), end);
  with_float_type(right.dtype, [&](auto type) {
    using T = typename decltype(type)::Stored;
    if (right.lie == Lie::rows) return pair_up_rows<T>(right, k0, k, n0, block, 0);
    expand_columns<T, Words::bf16_pairs>(right, k0, k, n0, block, 0);
  });
}

}  // namespace lowrank::cpu::LOWRANK_ISA
