// Reading frozen 16-bit numbers as f32, a vector at a time.
#pragma once
#include "kernel.h"

namespace lowrank::cpu::LOWRANK_ISA {

// Tags for the three stored types; Highway has its own for f16 and bf16.
struct F32 { using Stored = float; };
struct F16 { using Stored = hwy::float16_t; };
struct BF16 { using Stored = hwy::bfloat16_t; };

// Calls body(F32{}), body(F16{}) or body(BF16{}): turns a run-time dtype into a type, once, high up.
template <class Body>
LOWRANK_INLINE void with_float_type(DType dtype, const Body& body) {
  if (dtype == DType::f16) return body(F16{});
  if (dtype == DType::bf16) return body(BF16{});
  body(F32{});
}

template <class D>
LOWRANK_INLINE hn::Vec<D> load_f32(D d, const float* p) { return hn::LoadU(d, p); }

// f16 bits in the lower half of each lane, as the bits of the same number in f32, subnormals too, whatever the state of DAZ.
// A normal number's exponent moves by 112, that of inf and NaN by twice as much; a subnormal number is an integer times 2^-24.
template <class D, class V = hn::Vec<D>>
LOWRANK_INLINE V f16_as_f32_bits(D d, V bits) {
  const hn::RebindToFloat<D> df;
  const V magnitude = hn::And(bits, hn::Set(d, 0x7fff));
  const V step = hn::Set(d, 112 << 23);
  V f32 = hn::Add(hn::ShiftLeft<13>(magnitude), step);
  f32 = hn::Add(f32, hn::IfThenElseZero(hn::Gt(magnitude, hn::Set(d, 0x7bff)), step));
  const V tiny = hn::BitCast(d, hn::Mul(hn::ConvertTo(df, magnitude), hn::Set(df, 5.9604645e-8f)));
  f32 = hn::IfThenElse(hn::Lt(magnitude, hn::Set(d, 0x0400)), tiny, f32);
  return hn::Or(f32, hn::ShiftLeft<16>(hn::Sub(bits, magnitude)));
}

// F16C's conversion ignores DAZ. Where x86 lacks it, Highway (1.0.3) would read inf as 65,536 and NaN as a number beyond.
template <class D>
LOWRANK_INLINE hn::Vec<D> load_f32(D d, const hwy::float16_t* p) {
#if HWY_ARCH_X86 && (HWY_TARGET >= HWY_SSE4 || defined(HWY_DISABLE_F16C))
  const hn::RebindToSigned<D> word;
  const hn::Rebind<uint16_t, D> half;
  return hn::BitCast(d, f16_as_f32_bits(word, hn::PromoteTo(word, hn::LoadU(half, reinterpret_cast<const uint16_t*>(p)))));
#else
  const hn::Rebind<hwy::float16_t, D> half;
  return hn::PromoteTo(d, hn::LoadU(half, p));
#endif
}

// bf16 is the upper half of an f32.
template <class D>
LOWRANK_INLINE hn::Vec<D> load_f32(D d, const hwy::bfloat16_t* p) {
  const hn::Rebind<uint16_t, D> half;
  const hn::Rebind<uint32_t, D> word;
  const auto bits = hn::PromoteTo(word, hn::LoadU(half, reinterpret_cast<const uint16_t*>(p)));
  return hn::BitCast(d, hn::ShiftLeft<16>(bits));
}

// The first `n` lanes, the others 0; reads nothing beyond them.
template <class D, class T>
LOWRANK_INLINE hn::Vec<D> load_f32_n(D d, const T* p, int64_t n) {
  HWY_ALIGN T lanes[HWY_MAX_BYTES / sizeof(float)] = {};
  memcpy(lanes, p, static_cast<size_t>(n) * sizeof(T));
  return load_f32(d, lanes);
}

}  // namespace lowrank::cpu::LOWRANK_ISA
