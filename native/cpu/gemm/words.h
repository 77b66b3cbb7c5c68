// Numbers as they are stored, read by words of 32 bits: an f32, or two neighbours of 16 bits.
#pragma once
#include "../half.h"
#include "transpose.h"

namespace lowrank::cpu::LOWRANK_ISA {

using WordTag = hn::ScalableTag<uint32_t>;
using WordVec = hn::Vec<WordTag>;
using FloatTag = hn::ScalableTag<float>;
using FloatVec = hn::Vec<FloatTag>;

// `load` reads kLanes words at an address aligned to the number only.
template <class T>
struct WordsOf {
  static constexpr int64_t per = static_cast<int64_t>(sizeof(uint32_t) / sizeof(T));
  static constexpr int64_t chunk = kLanes * per;  // numbers
  static LOWRANK_INLINE WordVec load(const T* p) {
    return hn::BitCast(WordTag(), hn::LoadU(hn::Repartition<uint8_t, WordTag>(), reinterpret_cast<const uint8_t*>(p)));
  }
  static LOWRANK_INLINE WordVec load_n(const T* p, int64_t n) {
    HWY_ALIGN uint32_t words[kLanes] = {};
    memcpy(words, p, static_cast<size_t>(n) * sizeof(T));
    return hn::Load(WordTag(), words);
  }
};

// f32 vectors of the numbers in a vector of words: numbers<0> the even ones (or all), numbers<1> the odd ones.
template <int which>
LOWRANK_INLINE FloatVec numbers(float, WordVec words) { return hn::BitCast(FloatTag(), words); }

template <int which>
LOWRANK_INLINE FloatVec numbers(hwy::bfloat16_t, WordVec words) {
  if constexpr (which == 0) return hn::BitCast(FloatTag(), hn::ShiftLeft<16>(words));
  return hn::BitCast(FloatTag(), hn::And(words, hn::Set(WordTag(), 0xffff0000u)));
}

template <int which>
LOWRANK_INLINE FloatVec numbers(hwy::float16_t, WordVec words) {
  const hn::Rebind<uint16_t, FloatTag> half;
  const hn::Rebind<hwy::float16_t, FloatTag> f16;
  // The lower 16 bits of each word; shifted first, or cleared, because SSE4 narrows by saturation.
  const auto low = which == 0 ? hn::And(words, hn::Set(WordTag(), 0xffffu)) : hn::ShiftRight<16>(words);
#if HWY_TARGET <= HWY_AVX3
  return hn::PromoteTo(FloatTag(), hn::BitCast(f16, hn::TruncateTo(half, low)));
#else
  return hn::PromoteTo(FloatTag(), hn::BitCast(f16, hn::DemoteTo(half, hn::BitCast(hn::Rebind<int32_t, FloatTag>(), low))));
#endif
}

// f32 rounded to bf16, to nearest even, in the upper half of each word; what is below it is left over. A NaN stays one.
LOWRANK_INLINE WordVec round_to_upper(FloatVec v) {
  const WordTag w;
  const WordVec bits = hn::BitCast(w, v);
  const WordVec odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(w, 1));
  const WordVec rounded = hn::Add(bits, hn::Add(odd, hn::Set(w, 0x7fffu)));
  return hn::IfThenElse(hn::RebindMask(w, hn::IsNaN(v)), hn::Set(w, 0x7fc00000u), rounded);
}

// bf16 pairs of two vectors of f32: the first in the lower halves.
LOWRANK_INLINE WordVec pairs_of(FloatVec first, FloatVec second) {
  return hn::OrAnd(hn::ShiftRight<16>(round_to_upper(first)), round_to_upper(second), hn::Set(WordTag(), 0xffff0000u));
}

// The same for f32 that came from T: bf16 needs no rounding.
template <class T>
LOWRANK_INLINE WordVec pairs_from(T, FloatVec first, FloatVec second) { return pairs_of(first, second); }
LOWRANK_INLINE WordVec pairs_from(hwy::bfloat16_t, FloatVec first, FloatVec second) {
  const WordTag w;
  return hn::Or(hn::ShiftRight<16>(hn::BitCast(w, first)), hn::BitCast(w, second));
}

// bf16 pairs of stored words that hold a pair each.
LOWRANK_INLINE WordVec pairs_of_words(hwy::bfloat16_t, WordVec words) { return words; }
LOWRANK_INLINE WordVec pairs_of_words(hwy::float16_t t, WordVec words) { return pairs_of(numbers<0>(t, words), numbers<1>(t, words)); }

}  // namespace lowrank::cpu::LOWRANK_ISA
