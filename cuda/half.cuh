// 16-bit floats as storage; arithmetic is done in f32 or by mma. Conversions from f32 round to nearest even.
#pragma once
#include "gpu.cuh"

namespace lowrank::cuda {

struct f16 {
  static constexpr bool kIsBrain = false;
  uint16_t bits;
};
struct bf16 {
  static constexpr bool kIsBrain = true;
  uint16_t bits;
};

GPU_FN float as_float(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}
GPU_FN uint32_t as_bits(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

GPU_FN float to_f32(float x) { return x; }
GPU_FN float to_f32(bf16 h) { return as_float(static_cast<uint32_t>(h.bits) << 16); }
GPU_FN float to_f32(f16 h) {
#ifdef LOWRANK_CUSIM
  const uint32_t sign = static_cast<uint32_t>(h.bits & 0x8000) << 16, exponent = h.bits >> 10 & 31, fraction = h.bits & 1023;
  if (exponent == 31) return as_float(sign | 0x7f800000u | fraction << 13);
  if (exponent != 0) return as_float(sign | (exponent + 112) << 23 | fraction << 13);
  const float small = static_cast<float>(fraction) * 5.9604644775390625e-8f;  // 2^-24
  return as_float(sign | as_bits(small));
#else
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(h.bits));
  return value;
#endif
}

template <class T>
GPU_FN T from_f32(float x);
template <>
GPU_FN float from_f32<float>(float x) { return x; }
#ifdef LOWRANK_CUSIM
template <>
GPU_FN bf16 from_f32<bf16>(float x) {
  const uint32_t bits = as_bits(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return {static_cast<uint16_t>(bits >> 16 | 0x40)};  // NaN stays NaN
  return {static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}
template <>
GPU_FN f16 from_f32<f16>(float x) {
  const uint32_t bits = as_bits(x), sign = bits >> 16 & 0x8000, size = bits & 0x7fffffffu;
  if (size > 0x7f800000u) return {static_cast<uint16_t>(sign | 0x7e00)};
  if (size >= 0x477ff000u) return {static_cast<uint16_t>(sign | 0x7c00)};  // rounds to infinity
  if (size >= 0x38800000u) return {static_cast<uint16_t>(sign | (size - 0x38000000u + 0xfff + (size >> 13 & 1)) >> 13)};
  // Subnormal: adding 0.5 makes the hardware round at 2^-24, the unit of the result.
  return {static_cast<uint16_t>(sign | (as_bits(as_float(size) + 0.5f) & 0x7ff))};
}
#else
template <>
GPU_FN bf16 from_f32<bf16>(float x) {
  bf16 h;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(h.bits) : "f"(x));
  return h;
}
template <>
GPU_FN f16 from_f32<f16>(float x) {
  f16 h;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h.bits) : "f"(x));
  return h;
}
#endif

}  // namespace lowrank::cuda
