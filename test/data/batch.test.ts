import { describe, expect, it } from 'vitest';
import { makeBatch } from '../../src/data/batch.ts';
import { firstFit } from '../../src/data/packing.ts';
import { philox2x32, randomBelow, shuffleInPlace } from '../../src/data/random.ts';
import type { Sample } from '../../src/data/sample.ts';

const sample = (ids: number[], labels = ids, positions?: number[]): Sample => ({ inputIds: Int32Array.from(ids), labels: Int32Array.from(labels), ...(positions && { positions: Int32Array.from(positions) }) });

describe('makeBatch', () => {
  it('joins sequences, shifts labels inside each, and lets none predict the next one', () => {
    const batch = makeBatch([sample([1, 2, 3]), sample([4]), sample([5, 6], [-100, 6], [2, 5])]);
    expect(batch).toEqual({
      inputIds: Int32Array.of(1, 2, 3, 4, 5, 6),
      targets: Int32Array.of(2, 3, -100, -100, 6, -100),
      positions: Int32Array.of(0, 1, 2, 0, 2, 5),
      offsets: Int32Array.of(0, 3, 4, 6),
      tokens: 3,
    });
  });

  it('counts no token where nothing is learned', () => {
    expect(makeBatch([sample([1, 2], [1, -100])]).tokens).toBe(0);
  });

  const BAD: [string, Sample[], string][] = [
    ['no samples', [], 'ERR_ARGUMENT'],
    ['an empty sample', [sample([1]), sample([])], 'ERR_SHAPE'],
    ['labels of another length', [sample([1, 2], [1])], 'ERR_SHAPE'],
    ['positions of another length', [sample([1, 2], [1, 2], [0])], 'ERR_SHAPE'],
  ];
  it.each(BAD)('refuses %s', (_, samples, code) => {
    expect(() => makeBatch(samples)).toThrow(expect.objectContaining({ code }));
  });
});

describe('first-fit packing', () => {
  const lengths = (sizes: number[], capacity: number): number[][] => firstFit(sizes.map((_, i) => i), (i) => sizes[i]!, capacity).map((row) => row.map((i) => sizes[i]!));

  it('puts each into the first row with room', () => {
    expect(lengths([6, 5, 3, 4, 1, 2], 10)).toEqual([[6, 3, 1], [5, 4], [2]]);
  });

  it('gives one that is longer than a row a row of its own', () => {
    expect(lengths([4, 12, 4], 10)).toEqual([[4, 4], [12]]);
  });

  it('makes nothing of nothing', () => {
    expect(lengths([], 10)).toEqual([]);
  });

  it('agrees with the plain search over all rows', () => {
    const below = randomBelow(3, 0);
    for (const count of [1, 2, 31, 64, 65, 500]) {
      const sizes = Array.from({ length: count }, () => 1 + below(100));
      const plain: number[][] = [];
      for (const size of sizes) {
        const row = plain.find((content) => content.reduce((sum, n) => sum + n, 0) + size <= 128);
        if (row) row.push(size);
        else plain.push([size]);
      }
      expect(lengths(sizes, 128)).toEqual(plain);
    }
  });
});

describe('random numbers', () => {
  // Known answers of the authors' own implementation (Random123, kat_vectors).
  const KNOWN: [number[], number[]][] = [
    [[0, 0, 0], [0xff1dae59, 0x6cd10df2]],
    [[0xffffffff, 0xffffffff, 0xffffffff], [0x2c3f628b, 0xab4fd7ad]],
    [[0x243f6a88, 0x85a308d3, 0x13198a2e], [0xdd7ce038, 0xf62a4c12]],
  ];
  it.each(KNOWN)('Philox 2x32-10 of %j', ([low, high, key], expected) => {
    expect(philox2x32(low!, high!, key!)).toEqual(expected);
  });

  it('every number below the bound is about as likely', () => {
    for (const bound of [1, 2, 3, 7, 1000]) {
      const below = randomBelow(1, 0);
      const counts = new Float64Array(bound);
      for (let i = 0; i < 200 * bound; i++) counts[below(bound)]!++;
      // Chi-square of bound-1 degrees of freedom; its mean plus five standard deviations.
      const chi = counts.reduce((sum, count) => sum + (count - 200) ** 2 / 200, 0);
      expect(chi).toBeLessThanOrEqual(bound - 1 + 5 * Math.sqrt(2 * (bound - 1)));
    }
  });

  it('seed and stream each give other numbers, also seeds that differ above bit 32', () => {
    const first = (seed: number, stream: number): string => { const below = randomBelow(seed, stream); return Array.from({ length: 4 }, () => below(1e9)).join(); };
    const all = [[0, 0], [1, 0], [0, 1], [2 ** 32, 0], [2 ** 52 + 1, 0]].map(([seed, stream]) => first(seed!, stream!));
    expect(new Set(all).size).toBe(all.length);
    expect(first(7, 3)).toBe(first(7, 3));
  });

  it('a shuffle keeps every item and moves them', () => {
    const items = Uint32Array.from({ length: 1000 }, (_, i) => i);
    const shuffled = shuffleInPlace(items.slice(), randomBelow(0, 0));
    expect(shuffled.slice().sort()).toEqual(items);
    expect(shuffled.filter((item, i) => item === i).length).toBeLessThan(10);
  });
});
