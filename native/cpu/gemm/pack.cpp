#include "pack.h"

namespace lowrank::cpu::LOWRANK_ISA {

namespace {

using D = hn::ScalableTag<float>;
using W = hn::Rebind<uint32_t, D>;  // words: a float, or two neighbours of 16 bits

constexpr int64_t kDropChunk = 256;

// How far ahead lines are asked for. Pieces of rows are shorter than what the processor needs to guess the rest.
constexpr int64_t kRowsAhead = 8;
constexpr int64_t kLinesAhead = 4;

LOWRANK_INLINE void ask_for(const void* begin, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(static_cast<const char*>(begin) + i);
}

// Groups of kLanes rows that a panel is made of.
constexpr int kGroups = (kTileRows + kLanes - 1) / kLanes;

// Words of one number each, or of two. `load` reads kLanes words at an address aligned to the number only.
template <class T>
struct Words {
  static constexpr int64_t per = static_cast<int64_t>(sizeof(uint32_t) / sizeof(T));
  static constexpr int64_t chunk = kLanes * per;  // numbers
  static LOWRANK_INLINE hn::Vec<W> load(const T* p) {
    return hn::BitCast(W(), hn::LoadU(hn::Repartition<uint8_t, W>(), reinterpret_cast<const uint8_t*>(p)));
  }
  static LOWRANK_INLINE hn::Vec<W> load_n(const T* p, int64_t n) {
    HWY_ALIGN uint32_t words[kLanes] = {};
    memcpy(words, p, static_cast<size_t>(n) * sizeof(T));
    return hn::Load(W(), words);
  }
};

// f32 vectors of the numbers in a vector of words: first<0> the even ones (or all), first<1> the odd ones.
template <int which>
LOWRANK_INLINE hn::Vec<D> numbers(float, hn::Vec<W> words) { return hn::BitCast(D(), words); }

template <int which>
LOWRANK_INLINE hn::Vec<D> numbers(hwy::bfloat16_t, hn::Vec<W> words) {
  if constexpr (which == 0) return hn::BitCast(D(), hn::ShiftLeft<16>(words));
  return hn::BitCast(D(), hn::And(words, hn::Set(W(), 0xffff0000u)));
}

template <int which>
LOWRANK_INLINE hn::Vec<D> numbers(hwy::float16_t, hn::Vec<W> words) {
  const hn::Rebind<uint16_t, D> half;
  const hn::Rebind<hwy::float16_t, D> f16;
  // The lower 16 bits of each word; shifted first, or cleared, because SSE4 narrows by saturation.
  const auto low = which == 0 ? hn::And(words, hn::Set(W(), 0xffffu)) : hn::ShiftRight<16>(words);
#if HWY_TARGET <= HWY_AVX3
  return hn::PromoteTo(D(), hn::BitCast(f16, hn::TruncateTo(half, low)));
#else
  return hn::PromoteTo(D(), hn::BitCast(f16, hn::DemoteTo(half, hn::BitCast(hn::Rebind<int32_t, D>(), low))));
#endif
}

// --- A ---------------------------------------------------------------------------------------------------------------

// `n` <= kLanes numbers of each row, to n runs of `rows` numbers.
template <bool whole>
LOWRANK_INLINE void pack_chunk(const float* x, int64_t pitch, int64_t rows, int64_t n, float* panel) {
  const W w;
  hn::Vec<W> v[kGroups][kLanes];
  HWY_UNROLL(4)
  for (int g = 0; g < kGroups; ++g) {
    HWY_UNROLL(16)
    for (int i = 0; i < kLanes; ++i) {
      const int64_t row = g * kLanes + i;
      v[g][i] = hn::Zero(w);
      if (row < rows) v[g][i] = whole ? Words<float>::load(x + row * pitch) : Words<float>::load_n(x + row * pitch, n);
    }
    transpose(w, v[g]);
  }
  HWY_UNROLL(16)
  for (int k = 0; k < kLanes; ++k) {
    if (!whole && k >= n) break;
    HWY_UNROLL(4)
    for (int g = 0; g < kGroups; ++g)
      if (g * kLanes < rows) hn::StoreU(hn::BitCast(D(), v[g][k]), D(), panel + k * rows + g * kLanes);
  }
}

void pack_rows(const float* x, int64_t pitch, int64_t rows, int64_t k, float* panel) {
  int64_t i = 0;
  for (; i + kLanes <= k; i += kLanes) pack_chunk<true>(x + i, pitch, rows, kLanes, panel + i * rows);
  if (i < k) pack_chunk<false>(x + i, pitch, rows, k - i, panel + i * rows);
}

// --- B ---------------------------------------------------------------------------------------------------------------

// One row of `right`, `cols` numbers, to row `to` of the block's panels.
template <class T>
LOWRANK_INLINE void spread_row(const T* row, const Block& block, int64_t to) {
  const D d;
  int64_t n = 0;
  float* panel = block.panels + to * kTileCols;
  for (; n + kTileCols <= block.cols; n += kTileCols, panel += block.depth * kTileCols) {
    HWY_UNROLL(2)
    for (int v = 0; v < kTileVectors; ++v) hn::Store(load_f32(d, row + n + v * kLanes), d, panel + v * kLanes);
  }
  if (n == block.cols) return;
  panel = block.at(n / kTileCols, to);
  for (; n + kLanes <= block.cols; n += kLanes, panel += kLanes) hn::Store(load_f32(d, row + n), d, panel);
  if (n < block.cols) hn::Store(load_f32_n(d, row + n, block.cols - n), d, panel);
}

template <class T>
void expand_rows(const Right& right, int64_t k0, int64_t k, int64_t n0, const Block& block, int64_t to) {
  const T* row = static_cast<const T*>(right.data) + k0 * right.pitch + n0;
  for (int64_t i = 0; i < k; ++i, row += right.pitch) {
    if (i + kRowsAhead < k) ask_for(row + kRowsAhead * right.pitch, block.cols * static_cast<int64_t>(sizeof(T)));
    spread_row(row, block, to + i);
  }
}

void expand_dropped_rows(const Right& right, int64_t k0, int64_t k, int64_t n0, const Block& block, int64_t to) {
  HWY_ALIGN float row[kDropChunk];
  for (int64_t i = 0; i < k; ++i) {
    const int64_t element = (k0 + i) * right.pitch + n0;
    drop_row(right.drop, static_cast<const float*>(right.data) + element, element, block.cols, row);
    spread_row(row, block, to + i);
  }
}

// kLanes rows of W, of which `rows` exist, by Words<T>::chunk numbers of which n exist: to n vectors `step` floats apart.
template <class T, bool whole>
LOWRANK_INLINE void expand_chunk(const T* w, int64_t pitch, int64_t rows, int64_t n, float* to, int64_t step) {
  const D d;
  const W words;
  hn::Vec<W> v[kLanes];
  HWY_UNROLL(16)
  for (int i = 0; i < kLanes; ++i) {
    if constexpr (whole) {
      v[i] = Words<T>::load(w + i * pitch);
      __builtin_prefetch(reinterpret_cast<const char*>(w + i * pitch) + kLinesAhead * 64);
    } else {
      v[i] = i < rows ? Words<T>::load_n(w + i * pitch, n) : hn::Zero(words);
    }
  }
  transpose(words, v);
  HWY_UNROLL(16)
  for (int i = 0; i < kLanes; ++i) {
    float* at = to + i * Words<T>::per * step;
    if (whole || i * Words<T>::per < n) hn::Store(numbers<0>(T(), v[i]), d, at);
    if constexpr (Words<T>::per == 2) {
      if (whole || 2 * i + 1 < n) hn::Store(numbers<1>(T(), v[i]), d, at + step);
    }
  }
}

template <class T>
void expand_columns(const Right& right, int64_t k0, int64_t k, int64_t n0, const Block& block, int64_t to) {
  constexpr int64_t chunk = Words<T>::chunk;
  for (int64_t n = 0; n < block.cols; n += kLanes) {
    const int64_t panel = n / kTileCols, rows = block.cols - n < kLanes ? block.cols - n : kLanes;
    const int64_t step = block.vectors(panel) * kLanes;
    const T* w = static_cast<const T*>(right.data) + (n0 + n) * right.pitch + k0;
    float* at = block.at(panel, to) + n % kTileCols;
    int64_t i = 0;
    if (rows == kLanes)
      for (; i + chunk <= k; i += chunk) expand_chunk<T, true>(w + i, right.pitch, kLanes, chunk, at + i * step, step);
    for (; i < k; i += chunk) {
      const int64_t left = k - i < chunk ? k - i : chunk;
      expand_chunk<T, false>(w + i, right.pitch, rows, left, at + i * step, step);
    }
  }
}

}  // namespace

void pack_left(const Left& left, int64_t row, int64_t rows, int64_t k0, int64_t k, const Dropout& drop, float* panel) {
  const float* x = left.data + row * left.pitch + k0;
  if (!drop.on()) return pack_rows(x, left.pitch, rows, k, panel);
  HWY_ALIGN float dropped[kGroups * kLanes * kDropChunk];
  for (int64_t begin = 0; begin < k; begin += kDropChunk) {
    const int64_t n = k - begin < kDropChunk ? k - begin : kDropChunk;
    for (int64_t i = 0; i < rows; ++i)
      drop_row(drop, x + i * left.pitch + begin, (row + i) * left.k + k0 + begin, n, dropped + i * kDropChunk);
    pack_rows(dropped, kDropChunk, rows, n, panel + begin * rows);
  }
}

void expand_right(const Right& right, int64_t k0, int64_t k, int64_t n0, const Block& block, int64_t to) {
  if (right.drop.on()) return expand_dropped_rows(right, k0, k, n0, block, to);
  with_float_type(right.dtype, [&](auto type) {
    using T = typename decltype(type)::Stored;
    if (right.lie == Lie::rows) return expand_rows<T>(right, k0, k, n0, block, to);
    expand_columns<T>(right, k0, k, n0, block, to);
  });
}

}  // namespace lowrank::cpu::LOWRANK_ISA
