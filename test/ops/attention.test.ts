import { describe, expect, it } from 'vitest';
import { openDevice } from '../../src/device.ts';
import { launch } from '../../src/kernel.ts';
import { type AttentionArgs, attention, attentionGrad } from '../reference/attention.ts';
import { attentionMagnitudes, within } from './attention-bounds.ts';
import type { Bench } from './bench.ts';
import { bound, parity } from './parity.ts';

interface Case {
  readonly lengths: readonly number[];
  readonly H: number;
  readonly G: number;
  readonly D: number;
  readonly window: number;
  readonly scale?: number; // else 1/sqrt(D)
}

// Sequence lengths around strips of 24 rows, blocks of 64 keys and the gradient's chunks (64 tokens at D = 256, 1024 at D <= 16).
const cases: readonly Case[] = [
  { lengths: [], H: 1, G: 1, D: 4, window: 0 },
  { lengths: [0, 0], H: 2, G: 1, D: 8, window: 0 },
  { lengths: [1], H: 1, G: 1, D: 4, window: 0 },
  { lengths: [0, 5, 0, 1, 7, 0], H: 2, G: 1, D: 8, window: 0 },
  { lengths: [2, 3, 1, 1, 4, 2, 1, 6, 5, 3, 2, 1, 9, 1, 1], H: 4, G: 2, D: 16, window: 0 },
  { lengths: [3, 17, 2], H: 6, G: 2, D: 20, window: 0 },
  { lengths: [63], H: 1, G: 1, D: 5, window: 0 },
  { lengths: [64], H: 3, G: 1, D: 64, window: 0 },
  { lengths: [65, 1], H: 2, G: 2, D: 80, window: 0 },
  { lengths: [70], H: 7, G: 1, D: 15, window: 0 },
  { lengths: [40], H: 27, G: 1, D: 3, window: 0 },
  { lengths: [130, 20], H: 9, G: 3, D: 64, window: 0 },
  { lengths: [150], H: 2, G: 1, D: 128, window: 0 },
  { lengths: [131], H: 2, G: 1, D: 256, window: 0 },
  { lengths: [70, 9], H: 2, G: 1, D: 256, window: 20 },
  { lengths: [20, 85], H: 6, G: 2, D: 64, window: 0 },
  { lengths: [33, 100], H: 1, G: 1, D: 128, window: 0 },
  { lengths: [20, 31, 9], H: 7, G: 1, D: 64, window: 0 }, // heads that no step from row to row is a multiple of
  { lengths: [90], H: 2, G: 1, D: 96, window: 0 },
  { lengths: [90, 33], H: 2, G: 1, D: 96, window: 20 },
  { lengths: [30, 71], H: 2, G: 1, D: 128, window: 25 },
  { lengths: [75, 60], H: 3, G: 1, D: 64, window: 33 },
  { lengths: [100, 45], H: 2, G: 1, D: 32, window: 0 },
  { lengths: [1040], H: 1, G: 1, D: 4, window: 0 },
  { lengths: [66], H: 2, G: 1, D: 8, window: 1 },
  { lengths: [90, 33], H: 4, G: 2, D: 8, window: 5 },
  { lengths: [200], H: 2, G: 1, D: 16, window: 64 },
  { lengths: [257], H: 2, G: 1, D: 256, window: 70 },
  { lengths: [100], H: 2, G: 1, D: 12, window: 1000 },
  { lengths: [80], H: 2, G: 1, D: 16, window: 0, scale: 0 },
  { lengths: [80], H: 2, G: 1, D: 16, window: 0, scale: 12 }, // one key takes all: the running maximum must hold exp back
  { lengths: [80], H: 2, G: 1, D: 16, window: 0, scale: -1 },
];

function argsOf(bench: Bench, { lengths, H, G, D, window, scale }: Case): AttentionArgs {
  const offsets = lengths.reduce((all, length) => [...all, (all.at(-1) as number) + length], [0]);
  const T = offsets.at(-1) as number;
  return { qkv: bench.randomActivation(T * (H + 2 * G) * D), offsets, T, H, G, D, window, scale: Math.fround(scale ?? 1 / Math.sqrt(D)) };
}

// Cases that are there for the CPU's chunks, and that the checked emulator takes seconds for.
const tooBigToEmulate = ({ lengths, H, D }: Case): boolean => lengths.reduce((sum, length) => sum + length ** 2, 0) * H * D > 4e6;

parity('attention', {
  cases,
  halves: 'any rows',
  tooBigToEmulate,
  run(bench, testCase) {
    const args = argsOf(bench, testCase);
    const { qkv, offsets, T, H, G, D, window, scale } = args;
    const [y, lse] = [bench.activationOutput([T, H * D]), bench.output([T, H])];
    launch('attention', y, lse, bench.activation(qkv, [T, (H + 2 * G) * D]), bench.ints(offsets), H, G, window, scale);
    const want = bench.once(() => attention(args));
    const size = bench.once(() => attentionMagnitudes(args, want));
    return [
      { name: 'y', got: y, want: want.y, within: within(bench, D, size.y) },
      { name: 'lse', got: lse, want: want.lse, within: bound(D, size.lse) },
    ];
  },
});

parity('attention_grad', {
  cases,
  halves: 'any rows',
  tooBigToEmulate,
  run(bench, testCase) {
    const args = argsOf(bench, testCase);
    const { qkv, offsets, T, H, G, D, window, scale } = args;
    const dy = bench.randomActivation(T * H * D);
    const exact = bench.once(() => attention(args));
    const [y, lse] = [bench.rounded(exact.y), exact.lse.map(Math.fround)];
    const dqkv = bench.activationOutput([T, (H + 2 * G) * D]);
    launch('attention_grad', dqkv, bench.activation(dy, [T, H * D]), bench.activation(qkv, [T, (H + 2 * G) * D]), bench.activation(y, [T, H * D]),
      bench.input(lse, [T, H]), bench.ints(offsets), H, G, window, scale);
    const size = bench.once(() => attentionMagnitudes({ ...args, dy }, exact));
    const want = bench.once(() => attentionGrad({ ...args, dy }));
    return [{ name: 'dqkv', got: dqkv, want, within: within(bench, 2 * D, size.dqkv) }];
  },
});

describe('attention', () => {
  const wrong = [
    { offsets: [0, 3, 2, 4], says: 'element 2 is 2, less than the one before' },
    { offsets: [1, 4], says: 'element 0 is 1' },
    { offsets: [0, 5], says: 'element 1 is 5' },
    { offsets: [0, -1, 4], says: 'element 1 is -1' },
    { offsets: [0, 3], says: 'the last, element 1, is 3' },
    { offsets: [0], says: 'the last, element 0, is 0' },
  ];

  it.each(wrong)('offsets that do not rise from 0 to T are an error that names the element: $offsets', async ({ offsets, says }) => {
    await using device = await openDevice('cpu');
    const tensor = (rows: number, cols: number) => device.tensor(new Float32Array(rows * cols), [rows, cols]);
    const at = device.tensor(Int32Array.from(offsets));
    launch('attention', tensor(4, 4), tensor(4, 2), tensor(4, 8), at, 2, 1, 0, 1);
    await expect(device.fence()).rejects.toMatchObject({ code: 'ERR_RANGE', message: expect.stringContaining(says) as string });
    launch('attention_grad', tensor(4, 8), tensor(4, 4), tensor(4, 8), tensor(4, 4), tensor(4, 2), at, 2, 1, 0, 1);
    await expect(device.fence()).rejects.toMatchObject({ code: 'ERR_RANGE', message: expect.stringContaining('attention_grad: offsets must rise from 0 to T = 4') as string });
  });

  it('a NaN in a key reaches every query that sees it and none before', async () => {
    await using device = await openDevice('cpu');
    const [T, D] = [70, 16];
    const qkv = Float32Array.from({ length: T * 3 * D }, (_, i) => Math.sin(i));
    qkv[40 * 3 * D + D] = NaN;
    const [y, lse] = [device.empty([T, D]), device.empty([T, 1])];
    launch('attention', y, lse, device.tensor(qkv, [T, 3 * D]), device.tensor(Int32Array.of(0, T)), 1, 1, 0, 1);
    const broken = Array.from(await lse.data(), Number.isNaN);
    expect(broken).toEqual(Array.from({ length: T }, (_, t) => t >= 40));
    expect(Array.from((await y.data()).subarray(0, 40 * D)).some(Number.isNaN)).toBe(false);
  });
});
