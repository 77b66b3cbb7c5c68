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

// Elements one batch makes: each 64-bit lane of two vectors holds a counter, whose four words are four elements.
constexpr int64_t kPhiloxBatch = 2 * HWY_MAX_BYTES / 8 * 4;

using Philox64 = hn::Vec<hn::ScalableTag<uint64_t>>;

struct PhiloxWords {
  Philox64 c0, c1, c2, c3;
};

// A word lives in the lower half of a 64-bit lane, where 32 x 32 -> 64 multiplication reads it; what is in the upper half
// never matters.
LOWRANK_INLINE PhiloxWords philox_round(const PhiloxWords& c, Philox64 k0, Philox64 k1) {
  const hn::ScalableTag<uint32_t> d32;
  const auto p0 = hn::MulEven(hn::BitCast(d32, c.c0), hn::Set(d32, 0xd2511f53u));
  const auto p1 = hn::MulEven(hn::BitCast(d32, c.c2), hn::Set(d32, 0xcd9e8d57u));
  return {hn::Xor3(hn::ShiftRight<32>(p1), c.c1, k0), p1, hn::Xor3(hn::ShiftRight<32>(p0), c.c3, k1), p0};
}

// Factors of the words of one vector, in order: kPhiloxBatch / 2 of them. Even lanes count from the first block, odd lanes
// from half a vector later, so interleaving puts them in order.
LOWRANK_INLINE void philox_factors(const Dropout& drop, const PhiloxWords& c, float* factors) {
  const hn::ScalableTag<uint64_t> d64;
  const hn::ScalableTag<uint32_t> d32;
  const hn::ScalableTag<float> df;
  const auto low = hn::BitCast(d64, hn::OddEven(hn::BitCast(d32, hn::ShiftLeft<32>(c.c1)), hn::BitCast(d32, c.c0)));
  const auto high = hn::BitCast(d64, hn::OddEven(hn::BitCast(d32, hn::ShiftLeft<32>(c.c3)), hn::BitCast(d32, c.c2)));
  const auto words0 = hn::BitCast(d32, hn::InterleaveLower(d64, low, high));
  const auto words1 = hn::BitCast(d32, hn::InterleaveUpper(d64, low, high));
  const auto threshold = hn::Set(d32, drop.threshold);
  const auto keep = hn::Set(df, drop.keep);
  hn::StoreU(hn::IfThenZeroElse(hn::RebindMask(df, hn::Lt(words0, threshold)), keep), df, factors);
  hn::StoreU(hn::IfThenZeroElse(hn::RebindMask(df, hn::Lt(words1, threshold)), keep), df, factors + hn::Lanes(df));
}

// The factors (0 or `keep`) of the elements [4 * block, 4 * block + kPhiloxBatch). Two vectors at a time: their chains of
// ten rounds overlap and share the keys (0.56 to 0.43 ns an element, AVX-512 on Zen 4).
LOWRANK_INLINE void philox_batch(const Dropout& drop, uint64_t block, float* factors) {
  const hn::ScalableTag<uint64_t> d64;
  constexpr uint64_t lanes = HWY_MAX_BYTES / 8;
  const auto at = hn::Iota(d64, 0);
  const auto odd = hn::Ne(hn::And(at, hn::Set(d64, 1)), hn::Zero(d64));
  const auto ahead = hn::Add(hn::ShiftRight<1>(at), hn::IfThenElseZero(odd, hn::Set(d64, lanes / 2)));
  const auto begin = hn::Add(hn::Set(d64, block), ahead), next = hn::Add(begin, hn::Set(d64, lanes));
  const auto layer = hn::Set(d64, drop.layer), step = hn::Set(d64, drop.step);
  PhiloxWords a = {begin, hn::ShiftRight<32>(begin), layer, step};
  PhiloxWords b = {next, hn::ShiftRight<32>(next), layer, step};
  uint32_t k0 = drop.seed_low, k1 = drop.seed_high;
  HWY_UNROLL(10)
  for (int round = 0; round < 10; ++round) {
    const auto key0 = hn::Set(d64, k0), key1 = hn::Set(d64, k1);
    a = philox_round(a, key0, key1);
    b = philox_round(b, key0, key1);
    k0 += 0x9e3779b9u, k1 += 0xbb67ae85u;
  }
  philox_factors(drop, a, factors);
  philox_factors(drop, b, factors + kPhiloxBatch / 2);
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
