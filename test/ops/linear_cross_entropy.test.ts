import { describe, expect, it } from 'vitest';
import type { WeightOrder } from '../../src/device.ts';
import { openDevice } from '../../src/device.ts';
import { launch } from '../../src/kernel.ts';
import type { DType } from '../../src/tensor.ts';
import { crossEntropyGrad, IGNORE, linearCrossEntropy } from '../reference/cross_entropy.ts';
import { linear } from '../reference/linear.ts';
import { transposed } from './bench.ts';
import { epsilon, parity } from './parity.ts';
import { absoluteProduct, frozenFactor, frozenWeight, halfRounding } from './weights.ts';

interface Case {
  readonly T: number;
  readonly C: number;
  readonly V: number;
  readonly dtype: DType;
  readonly order: WeightOrder;
  readonly targets: 'all' | 'some' | 'none';
  readonly evaluates: boolean;
}

// [T, C, V]: nothing, one, ragged; a vocabulary of several ranges (512 each) and groups of them.
const sizes = [[0, 4, 9], [1, 1, 1], [3, 7, 2], [5, 16, 33], [40, 37, 1000], [3, 5, 9001], [20, 24, 10007]] as const;
const formats: readonly (readonly [DType, WeightOrder])[] = [['f32', 'out_in'], ['bf16', 'out_in'], ['f16', 'in_out']];
const kinds = ['all', 'some', 'none'] as const;
const cases: readonly Case[] = sizes.flatMap(([T, C, V], i) =>
  formats.flatMap(([dtype, order], j) => [true, false].map((evaluates) => ({ T, C, V, dtype, order, targets: kinds[(i + j) % 3] ?? 'all', evaluates }))));

function targetsOf({ T, V, targets }: Case): number[] {
  return Array.from({ length: T }, (_, t) => (targets === 'none' || (targets === 'some' && t % 3 === 1) ? IGNORE : (t * 7919) % V));
}

parity('linear_cross_entropy', {
  cases, frozen: true, halves: 'any rows', inHalves: ({ dtype }) => dtype !== 'f32',
  tooBigToEmulate: ({ V }) => V > 2000,
  run(bench, testCase) {
    const { T, C, V, dtype, order, evaluates } = testCase;
    const scale = 0.125;
    const { values: stored, weight } = frozenWeight(bench, V > 1000 ? [V - 700, 700] : [V], C, dtype, order);
    const given = bench.randomActivation(T * C, { scale: 0.3 });
    const [x, W] = [frozenFactor(bench, given, Infinity), frozenFactor(bench, stored, Infinity)];
    const targets = targetsOf(testCase);
    const loss = bench.output([1]);
    const dx = evaluates ? null : bench.activationOutput([T, C]);
    launch('linear_cross_entropy', loss, dx, bench.activation(given, [T, C]), weight, bench.ints(targets), scale);
    const want = bench.once(() => linearCrossEntropy({ x, W, targets, T, C, V, scale }));
    // A logit's error moves its exponential by as much, relatively; so what a row's logits are off by goes into everything after.
    const off = bench.once(() => absoluteProduct(x, W, T, V, C).map((most) => (16 + C / 8) * epsilon * most));
    const rowOff = Array.from(targets, (target, t) => (target === IGNORE ? 0 : off.subarray(t * V, (t + 1) * V).reduce((most, v) => Math.max(most, v), 0) + 32 * epsilon));
    const lossOff = rowOff.reduce((all, v) => all + 2 * v, 0) + 4 * epsilon * Math.abs(want.loss) + 1e-30;
    const outputs = [{ name: 'loss', got: loss, want: [want.loss], within: () => lossOff }];
    if (dx === null) return outputs;
    const most = bench.once(() => absoluteProduct(crossEntropyGrad({ logits: linear({ x, W, T, N: V, K: C }), targets, T, V, scale }), transposed(W, V, C), T, C, V));
    // With `medium` the probabilities are rounded to bf16 before they meet W, and the target's own row of W is taken as stored. With
    // activations of 16 bits they are rounded to these, f16 below 2^-14 to multiples of 2^-24.
    const halves = bench.device.info.matmulPrecision === 'medium' ? 2 ** -7 : halfRounding(bench);
    const smallest = bench.activations === 'f16' ? absoluteProduct(new Float64Array(V).fill(2 ** -25), transposed(W, V, C), 1, C, V) : new Float64Array(C);
    const within = (i: number): number => 1e-30 + (smallest[i % C] as number) + (halves + 2 * (rowOff[Math.floor(i / C)] as number) + (24 + V / 16) * epsilon) * (most[i] as number);
    return [...outputs, { name: 'dx', got: dx, want: want.dx, within }];
  },
});

describe('linear_cross_entropy', () => {
  it.each([3, -1, -99, 2 ** 31 - 1])('target %i is an error that names it and its row', async (target) => {
    await using device = await openDevice('cpu');
    const weight = device.weight([device.tensor(new Float32Array(6).fill(1), [3, 2])], 'out_in');
    launch('linear_cross_entropy', device.empty([1]), null, device.tensor(new Float32Array(4), [2, 2]), weight, device.tensor(Int32Array.of(0, target)), 1);
    const message = expect.stringContaining(`linear_cross_entropy: target ${target} at row 1 is outside [0, 3)`) as string;
    await expect(device.fence()).rejects.toMatchObject({ code: 'ERR_RANGE', message });
  });

  // Rows go in chunks of 512 at most, several at a time where the vocabulary makes few tasks; every 50th has no target.
  it.each([1500, 9001])('rows beyond one chunk get what they get alone, %i words', async (V) => {
    await using device = await openDevice('cpu');
    const [T, C] = [1300, 3];
    const values = Float32Array.from({ length: V * C }, (_, i) => Math.sin(i * 0.7));
    const x = Float32Array.from({ length: T * C }, (_, i) => Math.cos(i * 1.3));
    const targets = Int32Array.from({ length: T }, (_, t) => (t % 50 === 25 ? IGNORE : (t * 431) % V));
    const weight = device.weight([device.tensor(values.slice(0, 600 * C), [600, C]), device.tensor(values.slice(600 * C), [V - 600, C])], 'out_in');
    const [loss, dx] = [device.empty([1]), device.empty([T, C])];
    launch('linear_cross_entropy', loss, dx, device.tensor(x, [T, C]), weight, device.tensor(targets), 1);
    const got = await dx.data();
    for (const t of [0, 25, 50, 423, 424, 426, 511, 512, 850, 851, 1024, 1275, 1299]) {
      const one = device.empty([1, C]);
      launch('linear_cross_entropy', loss, one, device.tensor(x.slice(t * C, (t + 1) * C), [1, C]), weight, device.tensor(targets.slice(t, t + 1)), 1);
      const alone = await one.data();
      alone.forEach((v, c) => expect(got[t * C + c], `dx of row ${t}`).toBeCloseTo(v as number, 5));
    }
  });

  it('a target that is all but certain keeps the digits of its gradient', async () => {
    await using device = await openDevice('cpu');
    for (const order of ['out_in', 'in_out'] as const) {
      const weight = device.weight([device.tensor(Float32Array.of(0, 20, 0), order === 'out_in' ? [3, 1] : [1, 3])], order);
      const [loss, dx] = [device.empty([1]), device.empty([1, 1])];
      launch('linear_cross_entropy', loss, dx, device.tensor(Float32Array.of(1), [1, 1]), weight, device.tensor(Int32Array.of(1)), 1);
      const others = 2 * Math.exp(-20);
      expect((await dx.data())[0] as number / (-20 * others / (1 + others))).toBeCloseTo(1, 5);
      expect((await loss.data())[0] as number / Math.log1p(others)).toBeCloseTo(1, 5);
    }
  });

  it.each([NaN, Infinity])('%f in a row makes the loss and its gradient not a number', async (value) => {
    await using device = await openDevice('cpu');
    const weight = device.weight([device.tensor(Float32Array.of(1, 2, 3), [3, 1])], 'out_in');
    const [loss, dx] = [device.empty([1]), device.empty([1, 1])];
    launch('linear_cross_entropy', loss, dx, device.tensor(Float32Array.of(value), [1, 1]), weight, device.tensor(Int32Array.of(1)), 1);
    expect((await dx.data())[0]).toBeNaN();
    expect((await loss.data())[0]).toBeNaN();
  });
});
