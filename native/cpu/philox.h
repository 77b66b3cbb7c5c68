// Dropout from a counter: Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3",
// SC 2011). The mask is a function of (seed, layer, step, element), so nobody stores it.
#pragma once
#include "rows.h"

namespace lowrank::cpu::LOWRANK_ISA {

struct Dropout {
  uint32_t threshold = 0;  // floor(p * 2^32): a smaller word drops its element
  uint32_t seed_low = 0, seed_high = 0, layer = 0, step = 0;
  float keep = 1.0f;  // 1 / (1 - p)

  LOWRANK_INLINE bool on() const { return threshold != 0; }
};

LOWRANK_INLINE Dropout dropout_of(const LoraParts& parts, int part) {
  Dropout drop;
  drop.threshold = static_cast<uint32_t>(static_cast<double>(parts.dropout) * 4294967296.0);
  drop.seed_low = parts.seed_low, drop.seed_high = parts.seed_high;
  drop.layer = parts.layer[part], drop.step = parts.step;
  drop.keep = 1.0f / (1.0f - parts.dropout);
  return drop;
}

// Elements one batch of counters makes: each 64-bit lane holds a counter, whose four words are four elements.
constexpr int64_t kPhiloxBatch = HWY_MAX_BYTES / 8 * 4;

// The factors (0 or `keep`) of the elements [4 * block, 4 * block + kPhiloxBatch).
// A word lives in the lower half of a 64-bit lane, where 32 x 32 -> 64 multiplication reads it; what is in the upper half
// never matters. Even lanes count from `block`, odd lanes from half a batch later: interleaving then gives them in order.
LOWRANK_INLINE void philox_batch(const Dropout& drop, uint64_t block, float* factors) {
  const hn::ScalableTag<uint64_t> d64;
  const hn::ScalableTag<uint32_t> d32;
  const hn::ScalableTag<float> df;
  constexpr int64_t lanes = HWY_MAX_BYTES / 8, half = lanes / 2;
  HWY_ALIGN uint64_t first[lanes];
  for (int64_t i = 0; i < half; ++i) {
    first[2 * i] = block + static_cast<uint64_t>(i);
    first[2 * i + 1] = block + static_cast<uint64_t>(half + i);
  }
  const auto multiply = [&](auto v, uint32_t by) { return hn::MulEven(hn::BitCast(d32, v), hn::Set(d32, by)); };
  uint32_t k0 = drop.seed_low, k1 = drop.seed_high;
  auto c0 = hn::Load(d64, first);
  auto c1 = hn::ShiftRight<32>(c0);
  auto c2 = hn::Set(d64, drop.layer), c3 = hn::Set(d64, drop.step);
  HWY_UNROLL(10)
  for (int round = 0; round < 10; ++round) {
    const auto p0 = multiply(c0, 0xd2511f53u), p1 = multiply(c2, 0xcd9e8d57u);
    c0 = hn::Xor(hn::Xor(hn::ShiftRight<32>(p1), c1), hn::Set(d64, k0));
    c2 = hn::Xor(hn::Xor(hn::ShiftRight<32>(p0), c3), hn::Set(d64, k1));
    c1 = p1, c3 = p0;
    k0 += 0x9e3779b9u, k1 += 0xbb67ae85u;
  }
  const auto low = hn::OddEven(hn::BitCast(d32, hn::ShiftLeft<32>(c1)), hn::BitCast(d32, c0));
  const auto high = hn::OddEven(hn::BitCast(d32, hn::ShiftLeft<32>(c3)), hn::BitCast(d32, c2));
  const auto words0 = hn::BitCast(d32, hn::InterleaveLower(d64, hn::BitCast(d64, low), hn::BitCast(d64, high)));
  const auto words1 = hn::BitCast(d32, hn::InterleaveUpper(d64, hn::BitCast(d64, low), hn::BitCast(d64, high)));
  const auto threshold = hn::Set(d32, drop.threshold);
  const auto keep = hn::Set(df, drop.keep);
  hn::StoreU(hn::IfThenZeroElse(hn::RebindMask(df, hn::Lt(words0, threshold)), keep), df, factors);
  hn::StoreU(hn::IfThenZeroElse(hn::RebindMask(df, hn::Lt(words1, threshold)), keep), df, factors + hn::Lanes(df));
}

// Room for the factors of n elements that begin anywhere in a counter's four.
constexpr int64_t factors_room(int64_t n) { return (n + 3 + kPhiloxBatch) / kPhiloxBatch * kPhiloxBatch; }

// Fills `buffer` [factors_room(n)] and returns where in it the factor of `element` stands; the n - 1 others follow.
LOWRANK_INLINE const float* dropout_factors(const Dropout& drop, int64_t element, int64_t n, float* buffer) {
  const uint64_t block = static_cast<uint64_t>(element) / 4;
  const int64_t skip = element % 4;
  for (int64_t i = 0; i < n + skip; i += kPhiloxBatch) philox_batch(drop, block + static_cast<uint64_t>(i / 4), buffer + i);
  return buffer + skip;
}

// out = mask * x / (1 - p) for n neighbours, the first being number `element` of its tensor. `x` may be `out`.
LOWRANK_INLINE void drop_row(const Dropout& drop, const float* x, int64_t element, int64_t n, float* out) {
  constexpr int64_t kChunk = 256;
  HWY_ALIGN float buffer[factors_room(kChunk)];
  for (int64_t begin = 0; begin < n; begin += kChunk) {
    const int64_t count = n - begin < kChunk ? n - begin : kChunk;
    const float* factors = dropout_factors(drop, element + begin, count, buffer);
    map_row(count, [&](auto d, int64_t i, auto part) {
      part.store(hn::Mul(part.load(d, x + begin + i), part.load(d, factors + i)), d, out + begin + i);
    });
  }
}

}  // namespace lowrank::cpu::LOWRANK_ISA
