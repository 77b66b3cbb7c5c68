// A on its way: rows of f32 into panels.
#include "pack.h"
#include "words.h"

namespace lowrank::cpu::LOWRANK_ISA {

namespace {

constexpr int64_t kDropChunk = 256;

// Groups of kLanes rows that a panel is made of.
constexpr int kGroups = (kTileRows + kLanes - 1) / kLanes;

// `n` <= kLanes numbers of each row, to n runs of `rows` numbers.
template <bool whole>
LOWRANK_INLINE void pack_chunk(const float* x, int64_t pitch, int64_t rows, int64_t n, float* panel) {
  const WordTag w;
  WordVec v[kGroups][kLanes];
  HWY_UNROLL(4)
  for (int g = 0; g < kGroups; ++g) {
    HWY_UNROLL(16)
    for (int i = 0; i < kLanes; ++i) {
      const int64_t row = g * kLanes + i;
      v[g][i] = hn::Zero(w);
      if (row < rows) v[g][i] = whole ? WordsOf<float>::load(x + row * pitch) : WordsOf<float>::load_n(x + row * pitch, n);
    }
    transpose(w, v[g]);
  }
  HWY_UNROLL(16)
  for (int k = 0; k < kLanes; ++k) {
    if (!whole && k >= n) break;
    HWY_UNROLL(4)
    for (int g = 0; g < kGroups; ++g)
      if (g * kLanes < rows) hn::StoreU(hn::BitCast(FloatTag(), v[g][k]), FloatTag(), panel + k * rows + g * kLanes);
  }
}

void pack_rows(const float* x, int64_t pitch, int64_t rows, int64_t k, float* panel) {
  int64_t i = 0;
  for (; i + kLanes <= k; i += kLanes) pack_chunk<true>(x + i, pitch, rows, kLanes, panel + i * rows);
  if (i < k) pack_chunk<false>(x + i, pitch, rows, k - i, panel + i * rows);
}

// kLanes pairs of 2 * kLanes numbers in a row.
LOWRANK_INLINE WordVec pair_neighbours(const float* x) {
  const FloatTag d;
  const FloatVec low = hn::LoadU(d, x), high = hn::LoadU(d, x + kLanes);
  return pairs_of(hn::ConcatEven(d, high, low), hn::ConcatOdd(d, high, low));
}

}  // namespace

void pair_tiles(const Left& left, int64_t row, int64_t rows, float* panel) {
  const FloatTag d;
  const int64_t words = count_words(Words::bf16_tiles, left.k);
  const float* x = left.data + row * left.pitch;
  for (int64_t i = 0; i < rows; ++i, x += left.pitch) {
    const auto at = [&](int64_t word) { return panel + (word / kAmxWords * rows + i) * kAmxWords + word % kAmxWords; };
    int64_t word = 0;
    for (; 2 * (word + kLanes) <= left.k; word += kLanes) hn::StoreU(hn::BitCast(d, pair_neighbours(x + 2 * word)), d, at(word));
    for (; word < words; word += kLanes) {
      HWY_ALIGN float end[2 * kLanes] = {};
      if (2 * word < left.k) memcpy(end, x + 2 * word, static_cast<size_t>(left.k - 2 * word) * sizeof(float));
      hn::StoreU(hn::BitCast(d, pair_neighbours(end)), d, at(word));
    }
  }
}

void pack_left(const Left& left, int64_t row, int64_t rows, const Dropout& drop, float* panel) {
  const float* x = left.data + row * left.pitch;
  if (!drop.on()) return pack_rows(x, left.pitch, rows, left.k, panel);
  HWY_ALIGN float dropped[kGroups * kLanes * kDropChunk];
  for (int64_t begin = 0; begin < left.k; begin += kDropChunk) {
    const int64_t n = left.k - begin < kDropChunk ? left.k - begin : kDropChunk;
    for (int64_t i = 0; i < rows; ++i)
      drop_row(drop, x + i * left.pitch + begin, (row + i) * left.k + begin, n, dropped + i * kDropChunk);
    pack_rows(dropped, kDropChunk, rows, n, panel + begin * rows);
  }
}

}  // namespace lowrank::cpu::LOWRANK_ISA
