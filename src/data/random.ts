/**
 * Philox 2x32 with 10 rounds (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC11): a function from a
 * 64-bit counter and a 32-bit key to 64 random bits. There is no state to save: the same key and counter give the same
 * bits on every machine, so a resumed run needs only to know how far it was.
 */
export function philox2x32(counterLow: number, counterHigh: number, key: number): [number, number] {
  let [low, high, k] = [counterLow >>> 0, counterHigh >>> 0, key >>> 0];
  for (let round = 0; round < 10; round++) {
    const top = multiplyHigh(0xd256d193, low);
    const bottom = Math.imul(0xd256d193, low) >>> 0;
    [low, high] = [(top ^ k ^ high) >>> 0, bottom];
    k = (k + 0x9e3779b9) >>> 0;
  }
  return [low, high];
}

/** The upper 32 bits of a 32 × 32 bit product; doubles hold each 16-bit partial product exactly. */
function multiplyHigh(a: number, b: number): number {
  const [a1, a0, b1, b0] = [a >>> 16, a & 0xffff, b >>> 16, b & 0xffff];
  const middle = a1 * b0 + ((a0 * b0) >>> 16);
  const carry = (middle % 0x10000) + a0 * b1;
  return (a1 * b1 + Math.floor(middle / 0x10000) + Math.floor(carry / 0x10000)) >>> 0;
}

/** Random whole numbers below a bound, every one as likely as the others. */
export type BelowSource = (bound: number) => number;

/** A source for one purpose: `seed` (up to 53 bits) keys it, `stream` separates epochs and uses from one another. */
export function randomBelow(seed: number, stream: number): BelowSource {
  const key = (seed ^ Math.imul(Math.floor(seed / 2 ** 32), 0x85ebca6b)) >>> 0;
  let counter = 0;
  return (bound) => {
    // Lemire's method: the top half of bits × bound, after refusing the few products that would favour small numbers.
    const refuseBelow = (2 ** 32 - bound) % bound;
    for (;;) {
      const [bits] = philox2x32(counter++, stream, key);
      if (Math.imul(bits, bound) >>> 0 >= refuseBelow) return multiplyHigh(bits, bound);
    }
  };
}

/** Shuffles in place (Fisher-Yates, from the end) and returns the array. */
export function shuffleInPlace<T extends { length: number; [index: number]: number }>(items: T, below: BelowSource): T {
  for (let i = items.length - 1; i > 0; i--) {
    const j = below(i + 1);
    const kept = items[i]!;
    items[i] = items[j]!;
    items[j] = kept;
  }
  return items;
}
