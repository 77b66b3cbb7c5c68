import { philox4x32 } from './philox.ts';

export interface Dropout {
  p: number; // probability that an element is dropped, 0 <= p < 1; kernels take an f32, so give `Math.fround(p)` to compare
  seed: readonly [number, number]; // low and high 32 bits
  step: number; // uint32
}

/**
 * The factor of each of the `count` elements of x [T, K] for the projection with number `layer` (uint32): 0 where it is dropped, and
 * where it is kept what leaves the mean as it is. Element e = t*K + k takes the e % 8-th half (the lower first) of the words of the block
 * with counter (floor(e/8) low, floor(e/8) high, layer, step), and stays iff it is >= floor(p * 2^16).
 */
export function dropoutFactors({ p, seed, step }: Dropout, layer: number, count: number): Float64Array {
  const factors = new Float64Array(count);
  const threshold = Math.floor(p * 2 ** 16);
  for (let e = 0; e < count; e += 8) {
    const block = e / 8;
    const words = philox4x32([block >>> 0, Math.floor(block / 2 ** 32), layer, step], seed);
    const halves = words.flatMap((word) => [word & 0xffff, word >>> 16]);
    for (let i = 0; i < 8 && e + i < count; i++) factors[e + i] = halves[i]! >= threshold ? 2 ** 16 / (2 ** 16 - threshold) : 0;
  }
  return factors;
}
