// exp and what is made of it, a vector at a time. Errors were measured against f64, over the floats of the range named.
#pragma once
#include "kernel.h"

namespace lowrank::cpu::LOWRANK_ISA {

// e^x. Relative error below 1.1 ulp; results below 2^-126 are 0 whatever the state of FTZ; inf above 88.72; NaN stays NaN.
// With x = n ln2 + r, |r| <= ln2/2: n is read out of the low bits of x log2(e) + 1.5 * 2^23 and added to the exponent of e^r.
template <class D, class V = hn::Vec<D>>
LOWRANK_INLINE V exp_f32(D d, V x) {
  const hn::RebindToSigned<D> di;
  const V shifted = hn::MulAdd(x, hn::Set(d, 1.44269504f), hn::Set(d, 12582912.0f));
  const V n = hn::Sub(shifted, hn::Set(d, 12582912.0f));
  // ln2 in two parts; the first has 10 bits, so its product with n is exact.
  const V r = hn::NegMulAdd(n, hn::Set(d, -2.12194440e-4f), hn::NegMulAdd(n, hn::Set(d, 0.693359375f), x));
  V p = hn::MulAdd(hn::Set(d, 1.9875691500e-4f), r, hn::Set(d, 1.3981999507e-3f));
  p = hn::MulAdd(p, r, hn::Set(d, 8.3334519073e-3f));
  p = hn::MulAdd(p, r, hn::Set(d, 4.1665795894e-2f));
  p = hn::MulAdd(p, r, hn::Set(d, 1.6666665459e-1f));
  p = hn::MulAdd(p, r, hn::Set(d, 5.0000001201e-1f));
  p = hn::Add(hn::MulAdd(p, hn::Mul(r, r), r), hn::Set(d, 1.0f));
  const auto exponent = hn::ShiftLeft<23>(hn::BitCast(di, shifted));
  const V y = hn::BitCast(d, hn::Add(hn::BitCast(di, p), exponent));
  const V infinity = hn::BitCast(d, hn::Set(di, 0x7f800000));
  const V finite_or_nan = hn::IfThenElse(hn::Le(x, hn::Set(d, 88.7228317f)), y, hn::Add(x, infinity));
  return hn::IfThenZeroElse(hn::Lt(x, hn::Set(d, -87.3365402f)), finite_or_nan);
}

}  // namespace lowrank::cpu::LOWRANK_ISA
