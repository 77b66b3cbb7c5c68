import type { Numbers } from './numbers.ts';

/** Central differences of a scalar function at x: the slope in each element, good to about 1e-9 of f's scale. */
export function slopes(f: (x: Float64Array) => number, x: Numbers, h = 1e-5): Float64Array {
  return Float64Array.from(x, (_, i) => {
    const up = Float64Array.from(x);
    const down = Float64Array.from(x);
    up[i]! += h;
    down[i]! -= h;
    return (f(up) - f(down)) / (2 * h);
  });
}

/** Σ a b: turns an op's output into a scalar whose gradient with respect to the output is b. */
export function dot(a: Numbers, b: Numbers): number {
  if (a.length !== b.length) throw new Error(`dot: lengths differ (${a.length}, ${b.length})`);
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i]! * b[i]!;
  return sum;
}

/** Largest |a - b| / (1 + |b|); NaN anywhere, or unequal lengths, give Infinity. */
export function worst(a: Numbers, b: Numbers): number {
  if (a.length !== b.length) return Infinity;
  let most = 0;
  for (let i = 0; i < a.length; i++) {
    const gap = Math.abs(a[i]! - b[i]!) / (1 + Math.abs(b[i]!));
    if (!(gap <= most)) most = Number.isNaN(gap) ? Infinity : gap;
  }
  return most;
}

/** `count` standard normal numbers, the same for the same seed (mulberry32 and Box-Muller). */
export function normals(count: number, seed: number): Float64Array {
  let state = seed >>> 0;
  const uniform = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let z = Math.imul(state ^ (state >>> 15), state | 1);
    z ^= z + Math.imul(z ^ (z >>> 7), z | 61);
    return (((z ^ (z >>> 14)) >>> 0) + 0.5) / 2 ** 32;
  };
  const numbers = new Float64Array(count);
  for (let i = 0; i < count; i++) numbers[i] = Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform());
  return numbers;
}
