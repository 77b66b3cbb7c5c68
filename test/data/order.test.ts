import { describe, expect, it } from 'vitest';
import type { Dataset } from '../../src/data/dataset.ts';
import { batches, windowsInEpoch, type BatchOrderOptions, type BatchWindow } from '../../src/data/order.ts';

/** Sample i has the ids i, i, … so that batches show what they hold. */
function datasetOf(lengths: readonly number[]): Dataset {
  const samples = lengths.map((length, i) => new Int32Array(length).fill(i));
  return { length: lengths.length, source: 'made.jsonl', truncated: 0, skipped: 0, get: (i) => ({ inputIds: samples[i]!, labels: samples[i]! }) };
}

const OPTIONS: BatchOrderOptions = { batchSize: 2, accumulate: 2, seed: 5, shuffle: true, packing: 'none', seqLength: 16 };
const LENGTHS = Array.from({ length: 23 }, (_, i) => 2 + ((i * 7) % 13));

function take(count: number, from: Iterator<BatchWindow>): BatchWindow[] {
  return Array.from({ length: count }, () => from.next().value as BatchWindow);
}

/** Which samples each micro-batch of each window holds. */
const held = (windows: readonly BatchWindow[]): number[][][] => windows.map(({ batches: micro }) => micro.map(({ inputIds, offsets }) => Array.from(offsets.subarray(0, -1), (at) => inputIds[at]!)));

const VARIANTS = [
  { name: 'shuffled', options: OPTIONS },
  { name: 'in file order', options: { ...OPTIONS, shuffle: false } },
  { name: 'packed', options: { ...OPTIONS, packing: 'first-fit' as const } },
  { name: 'packed, in file order', options: { ...OPTIONS, packing: 'first-fit' as const, shuffle: false } },
];

describe.each(VARIANTS)('batches, $name', ({ options }) => {
  const dataset = datasetOf(LENGTHS);

  it('an epoch holds every sample once, the last partial window included', () => {
    for (const epoch of [0, 1, 2]) {
      const windows = take(windowsInEpoch(dataset, options, epoch), batches(dataset, options, { epoch, position: 0 }));
      expect(held(windows).flat(2).sort((a, b) => a - b)).toEqual(LENGTHS.map((_, i) => i));
      expect(windows.map(({ endsEpoch }) => endsEpoch)).toEqual(windows.map((_, i) => i === windows.length - 1));
      expect(windows.at(-1)!.state).toEqual({ epoch: epoch + 1, position: 0 });
    }
  });

  it('goes on from any saved state exactly as if it had not stopped', () => {
    const unbroken = take(20, batches(dataset, options));
    unbroken.slice(0, -1).forEach(({ state }, i) => {
      const saved = JSON.parse(JSON.stringify(state)) as typeof state;
      expect(take(20 - i - 1, batches(dataset, options, saved))).toEqual(unbroken.slice(i + 1));
    });
  });

  it('tokens of a window are the targets of its batches', () => {
    for (const { batches: micro, tokens } of take(12, batches(dataset, options))) {
      expect(tokens).toBe(micro.flatMap(({ targets }) => [...targets]).filter((target) => target !== -100).length);
    }
  });
});

/** Seed 5, epoch 0, 23 samples. A change here breaks the resuming of runs that were saved before. */
const KEPT_ORDER = [7, 22, 14, 0, 19, 4, 15, 10, 2, 13, 12, 9, 6, 16, 18, 3, 5, 8, 11, 20, 1, 21, 17];

describe('the order', () => {
  const dataset = datasetOf(LENGTHS);

  it('without shuffling is that of the file, each epoch', () => {
    const windows = take(12, batches(dataset, { ...OPTIONS, shuffle: false }));
    expect(held(windows).flat(2)).toEqual([...LENGTHS.keys(), ...LENGTHS.keys()]);
    expect(held(windows)[5]).toEqual([[20, 21], [22]]);
  });

  it('differs from epoch to epoch and from seed to seed', () => {
    const order = (seed: number, epoch: number): string => held(take(6, batches(dataset, { ...OPTIONS, seed }, { epoch, position: 0 }))).flat(2).join();
    expect(new Set([order(5, 0), order(5, 1), order(6, 0), order(6, 1)]).size).toBe(4);
  });

  it('is the same in every version: a saved run can be resumed by a later one', () => {
    expect(held(take(6, batches(dataset, OPTIONS))).flat(2)).toEqual(KEPT_ORDER);
  });
});

describe('packing', () => {
  it('fills rows up to seqLength tokens, batchSize rows in a micro-batch', () => {
    const dataset = datasetOf(LENGTHS);
    const options = { ...OPTIONS, packing: 'first-fit' as const, batchSize: 1, accumulate: 1 };
    const count = windowsInEpoch(dataset, options);
    const rows = take(count, batches(dataset, options)).flatMap(({ batches: micro }) => micro.map(({ inputIds }) => inputIds.length));
    expect(Math.max(...rows)).toBeLessThanOrEqual(16);
    expect(rows.reduce((sum, n) => sum + n, 0)).toBe(LENGTHS.reduce((sum, n) => sum + n, 0));
    expect(count).toBeLessThanOrEqual(Math.ceil(1.7 * (LENGTHS.reduce((sum, n) => sum + n, 0) / 16)));
    expect(windowsInEpoch(dataset, { ...options, batchSize: 2, accumulate: 3 })).toBe(Math.ceil(count / 6));
  });

  it('keeps samples apart: each has its own offsets and positions', () => {
    const [window] = take(1, batches(datasetOf([3, 2, 4]), { ...OPTIONS, packing: 'first-fit', shuffle: false, batchSize: 1, accumulate: 1 }));
    expect(window!.batches[0]).toMatchObject({ offsets: Int32Array.of(0, 3, 5, 9), positions: Int32Array.of(0, 1, 2, 0, 1, 0, 1, 2, 3), targets: Int32Array.of(0, 0, -100, 1, -100, 2, 2, 2, -100) });
  });
});

describe('refusals', () => {
  const BAD: [string, Partial<BatchOrderOptions>][] = [
    ['batchSize', { batchSize: 0 }],
    ['accumulate', { accumulate: 1.5 }],
    ['seed', { seed: -1 }],
    ['seqLength', { packing: 'first-fit', seqLength: 1 }],
  ];
  it.each(BAD)('%s out of range, at the call', (name, wrong) => {
    expect(() => batches(datasetOf([2]), { ...OPTIONS, ...wrong })).toThrow(`batches: ${name} must be a whole number`);
  });

  it('a data set without samples, and a state behind the end of its epoch', () => {
    expect(() => batches(datasetOf([]), OPTIONS)).toThrow('made.jsonl: at least one sample');
    expect(() => batches(datasetOf([2, 2]), OPTIONS, { epoch: 0, position: 2 })).toThrow("within the epoch's 1 windows (found 2)");
  });
});
