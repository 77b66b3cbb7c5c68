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

// v inside [-limit, limit]. NaN stays NaN, which Min and Max don't promise.
template <class D, class V = hn::Vec<D>>
LOWRANK_INLINE V clamp_f32(D d, V v, float limit) {
  v = hn::IfThenElse(hn::Gt(v, hn::Set(d, limit)), hn::Set(d, limit), v);
  return hn::IfThenElse(hn::Lt(v, hn::Set(d, -limit)), hn::Set(d, -limit), v);
}

// 1 / (1 + e^-z). Relative error below 2.5 ulp down to z = -87; 0 below -88.
template <class D, class V = hn::Vec<D>>
LOWRANK_INLINE V sigmoid_f32(D d, V z) {
  const V one = hn::Set(d, 1.0f);
  return hn::Div(one, hn::Add(one, exp_f32(d, hn::Neg(z))));
}

template <class V>
struct Normal {
  V bell;  // e^(-z^2/2), the density times sqrt(2 pi)
  V below; // Phi(z), the part of the distribution below z
};

// The normal distribution, in relative terms right in both tails (below 9 ulp). With a = |z|: Phi(-a) = e^(-a^2/2) G(a), and G is
// t times a polynomial of degree 9 in t = 1 / (1 + 0.24 a) (relative minimax on [0, 13.3], 3e-9); after 13.3 e^(-a^2/2) is 0.
template <class D, class V = hn::Vec<D>>
LOWRANK_INLINE Normal<V> normal_f32(D d, V z) {
  const hn::RebindToUnsigned<D> du;
  const V one = hn::Set(d, 1.0f);
  const V a = hn::Abs(clamp_f32(d, z, 15.0f));
  // a^2 = head^2 + (a - head)(a + head); the first is exact with 12 bits in head. What is lost when the two are added goes into e^-lost.
  const V head = hn::BitCast(d, hn::And(hn::BitCast(du, a), hn::Set(du, 0xfffff000u)));
  const V exact = hn::Mul(head, head);
  const V rest = hn::Mul(hn::Sub(a, head), hn::Add(a, head));
  const V square = hn::Add(exact, rest);
  const V lost = hn::Sub(rest, hn::Sub(square, exact));
  const V e = exp_f32(d, hn::Mul(square, hn::Set(d, -0.5f)));
  const V bell = hn::NegMulAdd(e, hn::Mul(lost, hn::Set(d, 0.5f)), e);
  const V t = hn::Div(one, hn::MulAdd(a, hn::Set(d, 0.24f), one));
  V p = hn::MulAdd(hn::Set(d, 2.5384078e-02f), t, hn::Set(d, -1.238228e-01f));
  p = hn::MulAdd(p, t, hn::Set(d, 2.0344657e-01f));
  p = hn::MulAdd(p, t, hn::Set(d, -1.41375e-01f));
  p = hn::MulAdd(p, t, hn::Set(d, 1.3886298e-01f));
  p = hn::MulAdd(p, t, hn::Set(d, 2.9658077e-02f));
  p = hn::MulAdd(p, t, hn::Set(d, 8.7196015e-02f));
  p = hn::MulAdd(p, t, hn::Set(d, 8.906741e-02f));
  p = hn::MulAdd(p, t, hn::Set(d, 9.58396e-02f));
  p = hn::MulAdd(p, t, hn::Set(d, 9.5743075e-02f));
  const V tail = hn::Mul(hn::Mul(p, t), bell);
  return {bell, hn::IfThenElse(hn::Lt(z, hn::Zero(d)), tail, hn::Sub(one, tail))};
}

}  // namespace lowrank::cpu::LOWRANK_ISA
