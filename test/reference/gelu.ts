import type { Numbers } from './numbers.ts';

/** 'erf' is the exact x Φ(x); 'tanh' is Hendrycks and Gimpel's approximation, HF's `gelu_new` and `gelu_pytorch_tanh`. */
export type GeluKind = 'erf' | 'tanh';

export interface GeluArgs {
  x: Numbers;
  kind: GeluKind;
}

/** y = gelu(x), element by element. */
export function gelu({ x, kind }: GeluArgs): Float64Array {
  return Float64Array.from(x, (z) => (kind === 'erf' ? z * normalCdf(z) : 0.5 * z * (1 + Math.tanh(inner(z)))));
}

/** dx for dy: dy * gelu'(x). */
export function geluGrad({ dy, x, kind }: GeluArgs & { dy: Numbers }): Float64Array {
  return Float64Array.from(x, (z, i) => dy[i]! * (kind === 'erf' ? erfSlope(z) : tanhSlope(z)));
}

const inner = (z: number) => Math.sqrt(2 / Math.PI) * (z + 0.044715 * z ** 3);

function erfSlope(z: number): number {
  return normalCdf(z) + (z * Math.exp((-z * z) / 2)) / Math.sqrt(2 * Math.PI);
}

function tanhSlope(z: number): number {
  const t = Math.tanh(inner(z));
  const innerSlope = Math.sqrt(2 / Math.PI) * (1 + 3 * 0.044715 * z * z);
  return 0.5 * (1 + t) + 0.5 * z * (1 - t * t) * innerSlope;
}

/** Φ(z) = erfc(-z/√2) / 2. */
export function normalCdf(z: number): number {
  return erfc(-z / Math.SQRT2) / 2;
}

/** 1 - erf(x), to relative 1e-13 in both tails. */
export function erfc(x: number): number {
  if (x < 0) return 2 - erfc(-x);
  return x < 2 ? 1 - erfSeries(x) : erfcFraction(x);
}

/** erf(x) = 2/√π exp(-x²) Σ 2ⁿ x²ⁿ⁺¹ / (2n+1)!!  (DLMF 7.6.2): every term is positive, nothing cancels. */
function erfSeries(x: number): number {
  let term = x;
  let sum = 0;
  for (let n = 0; n < 80; n++) {
    sum += term;
    term *= (2 * x * x) / (2 * n + 3);
  }
  return (2 / Math.sqrt(Math.PI)) * Math.exp(-x * x) * sum;
}

/** erfc(x) = exp(-x²)/√π · 1/(x + (1/2)/(x + 1/(x + (3/2)/(x + …))))  (DLMF 7.9.1), from the far end back. */
function erfcFraction(x: number): number {
  let tail = x;
  for (let n = 200; n > 0; n--) tail = x + n / 2 / tail;
  return Math.exp(-x * x) / Math.sqrt(Math.PI) / tail;
}
