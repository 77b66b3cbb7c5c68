import { describe, expect, test } from 'vitest';
import { dropoutFactors } from './dropout.ts';
import { philox4x32, type Words4 } from './philox.ts';

// Random123's known answers (kat_vectors, philox4x32 with 10 rounds).
const known: { counter: Words4; key: readonly [number, number]; out: Words4 }[] = [
  { counter: [0, 0, 0, 0], key: [0, 0], out: [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8] },
  {
    counter: [0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff],
    key: [0xffffffff, 0xffffffff],
    out: [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd],
  },
  {
    counter: [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344],
    key: [0xa4093822, 0x299f31d0],
    out: [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
  },
];

test.each(known)('philox4x32-10: gives the published answer for counter $counter', ({ counter, key, out }) => {
  expect(philox4x32(counter, key)).toEqual(out);
});

describe('dropout', () => {
  const base = { seed: [5, 6] as const, step: 8 };

  test('keeps all at p = 0 and about 1 - p of many, scaled so that the mean stays', () => {
    expect(dropoutFactors({ p: 0, ...base }, 7, 9)).toEqual(new Float64Array(9).fill(1));
    const factors = dropoutFactors({ p: 0.25, ...base }, 7, 20_000);
    const mean = factors.reduce((a, b) => a + b) / factors.length;
    expect(Math.abs(mean - 1)).toBeLessThan(0.02); // five standard deviations
    expect([...new Set(factors)].sort()).toEqual([0, 1 / 0.75]);
  });

  test('element e takes half e % 8 of the words of block floor(e / 8), the lower half of a word first', () => {
    const factors = dropoutFactors({ p: 0.5, ...base }, 7, 19);
    const words = [0, 1, 2].flatMap((block) => philox4x32([block, 0, 7, 8], [5, 6]));
    expect([...factors]).toEqual(words.slice(0, 10).flatMap((word) => [word & 0x8000 ? 2 : 0, word >>> 31 ? 2 : 0]).slice(0, 19));
  });

  test('a half equal to the threshold is kept, one below it is dropped', () => {
    const half = philox4x32([0, 0, 7, 8], [5, 6])[0] & 0xffff;
    expect(dropoutFactors({ p: half / 2 ** 16, ...base }, 7, 1)[0]).toBe(2 ** 16 / (2 ** 16 - half));
    expect(dropoutFactors({ p: (half + 1) / 2 ** 16, ...base }, 7, 1)[0]).toBe(0);
  });

  test.each([
    { seed: [5, 7] as const, layer: 7 },
    { seed: [4, 6] as const, layer: 7 },
    { step: 9, layer: 7 },
    { layer: 8 },
  ])('another mask for %o', ({ layer, ...change }) => {
    expect(dropoutFactors({ p: 0.5, ...base, ...change }, layer, 64)).not.toEqual(dropoutFactors({ p: 0.5, ...base }, 7, 64));
  });
});
