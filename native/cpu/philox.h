// Dropout from a counter: Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3",
// SC 2011). The mask is a function of (seed, layer, step, element), so nobody stores it.
#pragma once
#include "rows.h"

namespace lowrank::cpu::LOWRANK_ISA {

struct Dropout {
  uint32_t threshold = 0;  // floor(p * 2^32): a smaller word drops its element
  uint32_t seed_low = 0, seed_high = 0, layer = 0, step = 0;
  float keep = 1.0f;  // 1 / (1 - p)
  const uint8_t* bits = nullptr;  // where write_dropout_bits wrote the mask down, for one op that reads it more than once

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

// put(i, kept) for the i-th vector of elements made of the words of one vector, in order: two masks. Even lanes count from the first
// block, odd lanes from half a vector later, so interleaving puts them in order.
template <class Put>
LOWRANK_INLINE void philox_masks(const Dropout& drop, const PhiloxWords& c, int64_t first, const Put& put) {
  const hn::ScalableTag<uint64_t> d64;
  const hn::ScalableTag<uint32_t> d32;
  const auto low = hn::BitCast(d64, hn::OddEven(hn::BitCast(d32, hn::ShiftLeft<32>(c.c1)), hn::BitCast(d32, c.c0)));
  const auto high = hn::BitCast(d64, hn::OddEven(hn::BitCast(d32, hn::ShiftLeft<32>(c.c3)), hn::BitCast(d32, c.c2)));
  const auto words0 = hn::BitCast(d32, hn::InterleaveLower(d64, low, high));
  const auto words1 = hn::BitCast(d32, hn::InterleaveUpper(d64, low, high));
  const auto threshold = hn::Set(d32, drop.threshold);
  put(first, hn::Not(hn::Lt(words0, threshold)));
  put(first + 1, hn::Not(hn::Lt(words1, threshold)));
}

// Which of the elements [4 * block, 4 * block + kPhiloxBatch) are kept, a vector at a time. Two vectors of counters: their chains
// of ten rounds overlap and share the keys (0.56 to 0.43 ns an element, AVX-512 on Zen 4).
template <class Put>
LOWRANK_INLINE void philox_batch(const Dropout& drop, uint64_t block, const Put& put) {
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
  philox_masks(drop, a, 0, put);
  philox_masks(drop, b, 2, put);
}

// Bytes that write_dropout_bits fills for n elements, and what reading them may reach.
constexpr int64_t dropout_bytes(int64_t n) { return (n + kPhiloxBatch - 1) / kPhiloxBatch * kPhiloxBatch / 8 + HWY_MAX_BYTES; }

// Writes the mask of n elements from `element` (a multiple of kPhiloxBatch) on: bit e % 8 of bits[e / 8] for element e.
LOWRANK_INLINE void write_dropout_bits(const Dropout& drop, int64_t element, int64_t n, uint8_t* bits) {
  const hn::ScalableTag<uint32_t> d;
  constexpr int64_t lanes = HWY_MAX_BYTES / 4;
  for (int64_t e = element; e < element + n; e += kPhiloxBatch) {
    uint8_t nibble = 0;
    philox_batch(drop, static_cast<uint64_t>(e / 4), [&](int64_t i, auto kept) {
      HWY_ALIGN uint8_t bytes[8];
      hn::StoreMaskBits(d, kept, bytes);
      if constexpr (lanes >= 8) {
        memcpy(bits + (e + i * lanes) / 8, bytes, lanes / 8);
      } else if (i % 2 == 0) {
        nibble = bytes[0];
      } else {
        bits[(e + i * lanes) / 8] = static_cast<uint8_t>(nibble | bytes[0] << 4);
      }
    });
  }
}

// The factors of a vector of elements from `element` on, out of their bits: a multiple of 8, or of 4 where a vector has 4.
LOWRANK_INLINE hn::Vec<RowTag> read_dropout_bits(const Dropout& drop, int64_t element) {
  const RowTag d;
  constexpr int64_t lanes = HWY_MAX_BYTES / 4;
  HWY_ALIGN uint8_t bytes[8] = {};
  memcpy(bytes, drop.bits + element / 8, lanes >= 8 ? lanes / 8 : 1);
  if (lanes < 8 && element % 8 != 0) bytes[0] >>= 4;
  return hn::IfThenElseZero(hn::LoadMaskBits(d, bytes), hn::Set(d, drop.keep));
}

// Room for the factors of n elements that begin anywhere.
constexpr int64_t factors_room(int64_t n) { return (n + 7 + kPhiloxBatch) / kPhiloxBatch * kPhiloxBatch; }

// Where in what dropout_factors fills the factor of `element` stands.
LOWRANK_INLINE int64_t factors_before(const Dropout& drop, int64_t element) { return element % (drop.bits != nullptr ? 8 : 4); }

// Fills `buffer` [factors_room(n)] with the factors of n elements; returns the first of them, which is not the first of the buffer.
LOWRANK_INLINE const float* dropout_factors(const Dropout& drop, int64_t element, int64_t n, float* buffer) {
  if (drop.bits != nullptr) {
    const int64_t before = factors_before(drop, element);
    for (int64_t i = 0; i < n + before; i += HWY_MAX_BYTES / 4) hn::StoreU(read_dropout_bits(drop, element - before + i), RowTag(), buffer + i);
    return buffer + before;
  }
  const hn::ScalableTag<float> d;
  const auto keep = hn::Set(d, drop.keep);
  const uint64_t block = static_cast<uint64_t>(element) / 4;
  for (int64_t i = 0; i < n + element % 4; i += kPhiloxBatch)
    philox_batch(drop, block + static_cast<uint64_t>(i / 4), [&](int64_t v, auto kept) {
      hn::StoreU(hn::IfThenElseZero(hn::RebindMask(d, kept), keep), d, buffer + i + v * HWY_MAX_BYTES / 4);
    });
  return buffer + factors_before(drop, element);
}

// out = mask * x / (1 - p) for n neighbours, the first being number `element` of its tensor. `x` may be `out`.
LOWRANK_INLINE void drop_row(const Dropout& drop, const float* x, int64_t element, int64_t n, float* out) {
  if (drop.bits != nullptr && element % 8 == 0)
    return map_row(n, [&](auto d, int64_t i, auto part) { part.store(hn::Mul(part.load(d, x + i), read_dropout_bits(drop, element + i)), d, out + i); });
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
