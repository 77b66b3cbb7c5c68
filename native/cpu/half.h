// f32, f16 and bf16 as bits, in 32-bit lanes. Integer arithmetic, because stream threads flush subnormals (FTZ, DAZ) and a
// cast must not; and so every instruction set rounds the same way: to nearest even, any NaN to the one quiet NaN.
#pragma once
#include "load.h"

namespace lowrank::cpu::LOWRANK_ISA {

using BitsTag = hn::ScalableTag<int32_t>;
using BitsVec = hn::Vec<BitsTag>;

LOWRANK_INLINE BitsVec load_bits16(BitsTag d, const uint16_t* p) {
  const hn::Rebind<uint16_t, BitsTag> narrow;
  return hn::PromoteTo(d, hn::LoadU(narrow, p));
}

// Values in [0, 0xffff].
LOWRANK_INLINE void store_bits16(BitsVec bits, uint16_t* p) {
  const hn::Rebind<uint16_t, BitsTag> narrow;
  hn::StoreU(hn::DemoteTo(narrow, bits), narrow, p);
}

LOWRANK_INLINE BitsVec magnitude_of(BitsTag d, BitsVec f32) { return hn::And(f32, hn::Set(d, 0x7fffffff)); }

// The sign bit of an f32 at bit 15.
LOWRANK_INLINE BitsVec sign16_of(BitsTag d, BitsVec f32) {
  return hn::And(hn::ShiftRight<16>(f32), hn::Set(d, 0x8000));
}

// magnitude >> kBits, to nearest even.
template <int kBits>
LOWRANK_INLINE BitsVec shift_to_even(BitsTag d, BitsVec magnitude) {
  const BitsVec odd = hn::And(hn::ShiftRight<kBits>(magnitude), hn::Set(d, 1));
  return hn::ShiftRight<kBits>(hn::Add(hn::Add(magnitude, hn::Set(d, (1 << (kBits - 1)) - 1)), odd));
}

struct F32Bits {
  using Bits = int32_t;
  static LOWRANK_INLINE BitsVec load(BitsTag d, const Bits* p) { return hn::LoadU(d, p); }
  static LOWRANK_INLINE void store(BitsTag d, BitsVec f32, Bits* p) { hn::StoreU(f32, d, p); }
};

struct BF16Bits {
  using Bits = uint16_t;
  static LOWRANK_INLINE BitsVec load(BitsTag d, const Bits* p) { return hn::ShiftLeft<16>(load_bits16(d, p)); }
  static LOWRANK_INLINE void store(BitsTag d, BitsVec f32, Bits* p) {
    const BitsVec magnitude = magnitude_of(d, f32);
    const BitsVec number = hn::Or(shift_to_even<16>(d, magnitude), sign16_of(d, f32));
    const auto nan = hn::Gt(magnitude, hn::Set(d, 0x7f800000));
    store_bits16(hn::IfThenElse(nan, hn::Set(d, 0x7fc0), number), p);
  }
};

struct F16Bits {
  using Bits = uint16_t;

  static LOWRANK_INLINE BitsVec load(BitsTag d, const Bits* p) { return f16_as_f32_bits(d, load_bits16(d, p)); }

  // Below 2^-14 the FPU rounds: 0.5 has its last bit at 2^-24. Above 65,519 all is infinity.
  static LOWRANK_INLINE void store(BitsTag d, BitsVec f32, Bits* p) {
    const hn::RebindToFloat<BitsTag> df;
    const BitsVec magnitude = magnitude_of(d, f32);
    BitsVec f16 = shift_to_even<13>(d, hn::Sub(magnitude, hn::Set(d, 112 << 23)));
    f16 = hn::Min(f16, hn::Set(d, 0x7c00));
    const auto rounded = hn::BitCast(d, hn::Add(hn::BitCast(df, magnitude), hn::Set(df, 0.5f)));
    f16 = hn::IfThenElse(hn::Lt(magnitude, hn::Set(d, 0x38800000)), hn::Sub(rounded, hn::Set(d, 0x3f000000)), f16);
    const auto nan = hn::Gt(magnitude, hn::Set(d, 0x7f800000));
    f16 = hn::Or(f16, sign16_of(d, f32));
    store_bits16(hn::IfThenElse(nan, hn::Set(d, 0x7e00), f16), p);
  }
};

}  // namespace lowrank::cpu::LOWRANK_ISA
