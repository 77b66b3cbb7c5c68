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

template <class D>
LOWRANK_INLINE hn::Vec<D> load_f32(D d, const hwy::float16_t* p) {
  const hn::Rebind<hwy::float16_t, D> half;
  return hn::PromoteTo(d, hn::LoadU(half, p));
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
