import { philox4x32 } from './philox.ts';

export interface Dropout {
  p: number; // probability that an element is dropped, 0 <= p < 1; kernels take an f32, so give `Math.fround(p)` to compare
  seed: readonly [number, number]; // low and high 32 bits
  step: number; // uint32
}

/**
 * The factor of each of the `count` elements of x [T, K] for the projection with number `layer` (uint32): 1/(1-p) where it
 * is kept, 0 where it is dropped. Element e = t*K + k takes word e % 4 of the block with counter (floor(e/4) low,
 * floor(e/4) high, layer, step), and stays iff word >= floor(p * 2^32).
 */
export function dropoutFactors({ p, seed, step }: Dropout, layer: number, count: number): Float64Array {
  const factors = new Float64Array(count);
  const threshold = Math.floor(p * 2 ** 32);
  for (let e = 0; e < count; e += 4) {
    const block = e / 4;
    const words = philox4x32([block >>> 0, Math.floor(block / 2 ** 32), layer, step], seed);
    for (let i = 0; i < 4 && e + i < count; i++) factors[e + i] = words[i]! >= threshold ? 1 / (1 - p) : 0;
  }
  return factors;
}
