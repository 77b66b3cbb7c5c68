// Dropout from a counter: Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3",
// SC 2011). The mask is a function of (seed, layer, step, element), so nobody stores it. An element takes 16 bits.
#pragma once
#include "rows.h"

namespace lowrank::cpu::LOWRANK_ISA {

struct Dropout {
  uint32_t threshold = 0;  // a smaller half word drops its element
  uint32_t seed_low = 0, seed_high = 0, layer = 0, step = 0;
  float keep = 1.0f;  // 1 / (1 - p)
  const uint8_t* bits = nullptr;  // where write_dropout_bits wrote the mask down, for one op that reads it more than once

  LOWRANK_INLINE bool on() const { return threshold != 0; }
};

LOWRANK_INLINE Dropout dropout_of(const LoraParts& parts, int part) {
  Dropout drop;
  drop.threshold = parts.threshold();
  drop.seed_low = parts.seed_low, drop.seed_high = parts.seed_high;
  drop.layer = parts.layer[part], drop.step = parts.step;
  drop.keep = parts.keep();
  return drop;
}

// Elements that the words of one vector make, and those of one batch: each 64-bit lane of two vectors holds a counter, whose four words are
// eight elements.
constexpr int64_t kPhiloxVector = HWY_MAX_BYTES;
constexpr int64_t kPhiloxBatch = 2 * kPhiloxVector;

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

// Which elements are kept of those that the words of one vector make, in order: a mask of bytes. Even lanes count from the first block, odd
// lanes from half a vector later, so interleaving puts them in order.
LOWRANK_INLINE auto philox_mask(const Dropout& drop, const PhiloxWords& c) {
  const hn::ScalableTag<uint64_t> d64;
  const hn::ScalableTag<uint32_t> d32;
  const hn::ScalableTag<uint16_t> d16;
  const hn::ScalableTag<uint8_t> d8;
  const auto low = hn::BitCast(d64, hn::OddEven(hn::BitCast(d32, hn::ShiftLeft<32>(c.c1)), hn::BitCast(d32, c.c0)));
  const auto high = hn::BitCast(d64, hn::OddEven(hn::BitCast(d32, hn::ShiftLeft<32>(c.c3)), hn::BitCast(d32, c.c2)));
  const auto threshold = hn::Set(d16, static_cast<uint16_t>(drop.threshold));
  const auto dropped = [&](auto words) { return hn::BitCast(d8, hn::VecFromMask(d16, hn::Lt(hn::BitCast(d16, words), threshold))); };
  const auto bytes = hn::ConcatEven(d8, dropped(hn::InterleaveUpper(d64, low, high)), dropped(hn::InterleaveLower(d64, low, high)));
  return hn::Not(hn::MaskFromVec(bytes));
}

template <class Mask>
LOWRANK_INLINE void store_bits(const Mask& mask, uint8_t* bits) {
  HWY_ALIGN uint8_t bytes[8];  // what StoreMaskBits may write
  hn::StoreMaskBits(hn::ScalableTag<uint8_t>(), mask, bytes);
  memcpy(bits, bytes, kPhiloxVector / 8);
}

// The mask of the elements [8 * block, 8 * block + kPhiloxBatch). Two vectors of counters: their chains of ten rounds overlap and share the
// keys (a quarter less time, AVX-512 on Zen 4).
LOWRANK_INLINE void write_batch(const Dropout& drop, uint64_t block, uint8_t* bits) {
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
  store_bits(philox_mask(drop, a), bits);
  store_bits(philox_mask(drop, b), bits + kPhiloxVector / 8);
}

// Bytes that write_dropout_bits fills for n elements, and what reading them may reach.
constexpr int64_t dropout_bytes(int64_t n) { return (n + kPhiloxBatch - 1) / kPhiloxBatch * kPhiloxBatch / 8 + HWY_MAX_BYTES; }

// Writes the mask of n elements from `element`, a multiple of 8, on: bit i % 8 of bits[i / 8] for element + i.
LOWRANK_INLINE void write_dropout_bits(const Dropout& drop, int64_t element, int64_t n, uint8_t* bits) {
  for (int64_t i = 0; i < n; i += kPhiloxBatch) write_batch(drop, static_cast<uint64_t>(element + i) / 8, bits + i / 8);
}

// The factors of a vector of elements from the i-th of `bits` on; i is a multiple of 8, or of 4 where a vector has 4.
LOWRANK_INLINE hn::Vec<RowTag> read_dropout_bits(const uint8_t* bits, float keep, int64_t i) {
  const RowTag d;
  constexpr int64_t lanes = HWY_MAX_BYTES / 4;
  HWY_ALIGN uint8_t bytes[8] = {};
  memcpy(bytes, bits + i / 8, lanes >= 8 ? lanes / 8 : 1);
  if (lanes < 8 && i % 8 != 0) bytes[0] >>= 4;
  return hn::IfThenElseZero(hn::LoadMaskBits(d, bytes), hn::Set(d, keep));
}

// Room for the factors of n elements that begin anywhere.
constexpr int64_t factors_room(int64_t n) { return (n + 7 + HWY_MAX_BYTES / 4) / (HWY_MAX_BYTES / 4) * (HWY_MAX_BYTES / 4); }

// Fills `factors` [factors_room(n)] with the factors of n elements from `element` on; the first of them is at element % 8. `bits`: the mask from
// the multiple of 8 before it on.
LOWRANK_INLINE void fill_dropout_factors(const uint8_t* bits, float keep, int64_t element, int64_t n, float* factors) {
  for (int64_t i = 0; i < n + element % 8; i += HWY_MAX_BYTES / 4) hn::StoreU(read_dropout_bits(bits, keep, i), RowTag(), factors + i);
}

// out = mask * x / (1 - p) for n neighbours, the first being number `element` of its tensor. `x` may be `out`.
LOWRANK_INLINE void drop_row(const Dropout& drop, const float* x, int64_t element, int64_t n, float* out) {
  constexpr int64_t kChunk = 256;
  uint8_t drawn[dropout_bytes(kChunk)];
  HWY_ALIGN float factors[factors_room(kChunk)];
  for (int64_t count; n > 0; n -= count, x += count, out += count, element += count) {
    const int64_t before = element % 8;
    count = n < kChunk - before ? n : kChunk - before;
    if (drop.bits == nullptr) write_dropout_bits(drop, element - before, count + before, drawn);
    const uint8_t* bits = drop.bits != nullptr ? drop.bits + element / 8 : drawn;
    if (before == 0) {
      map_row(count, [&](auto d, int64_t i, auto part) { part.store(hn::Mul(part.load(d, x + i), read_dropout_bits(bits, drop.keep, i)), d, out + i); });
      continue;
    }
    fill_dropout_factors(bits, drop.keep, element, count, factors);
    map_row(count, [&](auto d, int64_t i, auto part) { part.store(hn::Mul(part.load(d, x + i), part.load(d, factors + before + i)), d, out + i); });
  }
}

}  // namespace lowrank::cpu::LOWRANK_ISA
