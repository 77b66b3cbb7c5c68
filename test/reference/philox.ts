/**
 * Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
 * The high half of a product of 32x32 bits is made of two of 16x32, which a number holds exactly.
 */
const MULTIPLIER = [0xd2511f53, 0xcd9e8d57] as const;
const WEYL = [0x9e3779b9, 0xbb67ae85] as const;

export type Words4 = readonly [number, number, number, number];

/** Four random uint32 words for a counter of four uint32 words and a key of two. */
export function philox4x32(counter: Words4, key: readonly [number, number]): Words4 {
  let [c0, c1, c2, c3] = counter;
  let [k0, k1] = key;
  for (let round = 0; round < 10; round++) {
    const [m0, m1] = MULTIPLIER;
    [c0, c1, c2, c3] = [(high(m1, c2) ^ c1 ^ k0) >>> 0, low(m1, c2), (high(m0, c0) ^ c3 ^ k1) >>> 0, low(m0, c0)];
    k0 = (k0 + WEYL[0]) >>> 0;
    k1 = (k1 + WEYL[1]) >>> 0;
  }
  return [c0, c1, c2, c3];
}

function high(a: number, word: number): number {
  const b = word >>> 0;
  const below = Math.floor(((a & 0xffff) * b) / 2 ** 16);
  return Math.floor(((a >>> 16) * b + below) / 2 ** 16);
}

const low = (a: number, word: number): number => Math.imul(a, word) >>> 0;
