/**
 * A 16-bit float: sign, exponent field, `mantissa` stored bits. Every finite value is a multiple of the quantum
 * 2^(e - mantissa), where e is the exponent, but never less than `minExponent`: below that they are subnormal.
 */
interface Format {
  mantissa: number;
  minExponent: number;
  infinity: number; // bit pattern, sign clear
}

const F16: Format = { mantissa: 10, minExponent: -14, infinity: 0x7c00 };
const BF16: Format = { mantissa: 7, minExponent: -126, infinity: 0x7f80 };

/** Bits of the f16 nearest to the f32 value `x`, ties to even. A NaN gives the quiet NaN 0x7e00. */
export const f16Bits = (x: number) => encode(Math.fround(x), F16);

/** Bits of the bf16 nearest to the f32 value `x`, ties to even. A NaN gives the quiet NaN 0x7fc0. */
export const bf16Bits = (x: number) => encode(Math.fround(x), BF16);

/** The value of f16 bits: exact in f32. */
export const f16Value = (bits: number) => decode(bits, F16);

/** The value of bf16 bits: exact in f32. */
export const bf16Value = (bits: number) => decode(bits, BF16);

function encode(x: number, { mantissa, minExponent, infinity }: Format): number {
  if (Number.isNaN(x)) return infinity | (1 << (mantissa - 1));
  const sign = x < 0 || Object.is(x, -0) ? 0x8000 : 0;
  if (x === 0) return sign;
  if (!Number.isFinite(x)) return sign | infinity;
  // floor(log2) in f64 is right for every f32: neighbours of a power of two are 2^-24 apart in log2, its error 2^-45.
  const e = Math.max(minExponent, Math.floor(Math.log2(Math.abs(x))));
  const quanta = roundHalfEven(Math.abs(x) / 2 ** (e - mantissa));
  // A mantissa that rounds up to the next power of two carries into the exponent field, and from the top into infinity.
  const bits = ((e - minExponent) << mantissa) + quanta;
  return sign | Math.min(bits, infinity);
}

function decode(bits: number, { mantissa, minExponent, infinity }: Format): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const magnitude = bits & 0x7fff;
  if (magnitude > infinity) return NaN;
  if (magnitude === infinity) return sign * Infinity;
  const field = magnitude >> mantissa;
  const fraction = (magnitude & ((1 << mantissa) - 1)) / 2 ** mantissa;
  return field === 0 ? sign * fraction * 2 ** minExponent : sign * (1 + fraction) * 2 ** (field - 1 + minExponent);
}

function roundHalfEven(x: number): number {
  const down = Math.floor(x);
  const rest = x - down;
  if (rest !== 0.5) return rest < 0.5 ? down : down + 1;
  return down % 2 === 0 ? down : down + 1;
}
