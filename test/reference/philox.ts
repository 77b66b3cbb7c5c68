/**
 * Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
 * Products are taken with BigInt, so that the high half of 32x32 bits is exact.
 */
const MULTIPLIER = [0xd2511f53n, 0xcd9e8d57n] as const;
const WEYL = [0x9e3779b9, 0xbb67ae85] as const;

export type Words4 = readonly [number, number, number, number];

/** Four random uint32 words for a counter of four uint32 words and a key of two. */
export function philox4x32(counter: Words4, key: readonly [number, number]): Words4 {
  let [c0, c1, c2, c3] = counter;
  let [k0, k1] = key;
  for (let round = 0; round < 10; round++) {
    const p0 = MULTIPLIER[0] * BigInt(c0 >>> 0);
    const p1 = MULTIPLIER[1] * BigInt(c2 >>> 0);
    [c0, c1, c2, c3] = [(high(p1) ^ c1 ^ k0) >>> 0, low(p1), (high(p0) ^ c3 ^ k1) >>> 0, low(p0)];
    k0 = (k0 + WEYL[0]) >>> 0;
    k1 = (k1 + WEYL[1]) >>> 0;
  }
  return [c0, c1, c2, c3];
}

function high(product: bigint): number {
  return Number(product >> 32n);
}

function low(product: bigint): number {
  return Number(product & 0xffffffffn);
}
