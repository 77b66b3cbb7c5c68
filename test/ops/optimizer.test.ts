import { describe, expect, it } from 'vitest';
import { openDevice } from '../../src/device.ts';
import { launch } from '../../src/kernel.ts';
import type { Tensor } from '../../src/tensor.ts';
import { adamwInplace } from '../reference/adamw.ts';
import { sgdInplace } from '../reference/sgd.ts';
import { clipCoefficient, sumSquares } from '../reference/sum_squares.ts';
import { bound, epsilon, parity } from './parity.ts';

// 16,384 numbers are one task of the kernels.
const counts = [0, 1, 3, 7, 16, 17, 33, 997, 16384, 40001];

parity('sum_squares', {
  cases: counts.map((count) => ({ count })),
  run(bench, { count }) {
    const x = bench.random(count);
    const sum = bench.output([1]);
    launch('sum_squares', sum, bench.input(x, [count]));
    const want = sumSquares(x);
    // Added in f64: only the last rounding to f32 is seen.
    return [{ name: 'sum', got: sum, want: [want], within: () => 1.001 * epsilon * want }];
  },
});

const rates = { lr: 1e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: 0.01 };
const adamwCases = counts.flatMap((count) => [
  { count, step: 1, clip: 0, lossScale: 1, ...rates },
  { count, step: 10, clip: 1, lossScale: 2 ** 16, ...rates, beta2: 0.95 },
]);

parity('adamw', {
  cases: adamwCases,
  run(bench, { count, step, clip, lossScale, ...settings }) {
    const [p, g, m] = [bench.random(count), bench.random(count), bench.random(count, { scale: 0.1 })];
    const scaled = g.map((x) => x * lossScale); // exact: a power of two
    const v = bench.random(count).map((x) => Math.fround(0.01 * x * x));
    const [ownP, ownM, ownV] = [p, m, v].map((values) => bench.inout(values, [count])) as [Tensor, Tensor, Tensor];
    const squares = Math.fround(sumSquares(g));
    const gate = [bench.input([squares * lossScale ** 2], [1]), bench.input([0.5, 2], [2]), clip, lossScale] as const;
    const { lr, beta1, beta2, eps, weightDecay } = settings;
    launch('adamw', ownP, ownM, ownV, bench.input(scaled, [count]), ...gate, lr, beta1, beta2, eps, weightDecay, 1 - beta1 ** step, 1 - beta2 ** step);
    const clipped = g.map((x) => x * (clip === 0 ? 1 : clipCoefficient({ norm: Math.sqrt(squares), clip })));
    const want = { p: Float64Array.from(p), m: Float64Array.from(m), v: Float64Array.from(v) };
    adamwInplace({ ...want, g: clipped, step, ...settings });
    const moved = want.p.map((x, i) => Math.abs(x - (p[i] as number)));
    return [
      { name: 'p', got: ownP, want: want.p, within: bound(1, p.map((x, i) => Math.abs(x) + 8 * (moved[i] as number)), 3) },
      { name: 'm', got: ownM, want: want.m, within: bound(1, m.map((x, i) => Math.abs(x) + Math.abs(clipped[i] as number)), 3) },
      { name: 'v', got: ownV, want: want.v, within: bound(1, want.v, 4) },
    ];
  },
});

const sgdCases = counts.flatMap((count) => [
  { count, momentum: 0, weightDecay: 0, first: 1, clip: 0, lossScale: 0 },
  { count, momentum: 0, weightDecay: 0.1, first: 0, clip: 1, lossScale: 1 },
  { count, momentum: 0.9, weightDecay: 0.1, first: 1, clip: 0.5, lossScale: 1 },
  { count, momentum: 0.9, weightDecay: 0, first: 0, clip: 0, lossScale: 2 ** 10 },
]);

parity('sgd', {
  cases: sgdCases,
  run(bench, { count, momentum, weightDecay, first, clip, lossScale }) {
    const [p, g, kept] = [bench.random(count), bench.random(count), bench.random(count)];
    const factor = lossScale === 0 ? 1 : lossScale;
    const squares = Math.fround(sumSquares(g));
    const ownP = bench.inout(p, [count]);
    // On the first step the buffer holds NaN and must not be read.
    const buffer = momentum === 0 ? null : first === 1 ? bench.output([count]) : bench.inout(kept, [count]);
    const lr = 0.1;
    launch('sgd', ownP, buffer, bench.input(g.map((x) => x * factor), [count]), bench.input([squares * factor ** 2], [1]), bench.input([], [0]), clip, lossScale, lr, momentum, weightDecay, first);
    const scale = clip === 0 ? 1 : clipCoefficient({ norm: Math.sqrt(squares), clip });
    const want = Float64Array.from(p);
    const velocity = momentum === 0 ? undefined : first === 1 ? new Float64Array(count) : Float64Array.from(kept);
    sgdInplace({ p: want, velocity, g: g.map((x) => x * scale), lr, momentum, weightDecay });
    const magnitude = p.map((x, i) => Math.abs(x) + Math.abs(g[i] as number) + Math.abs(kept[i] as number));
    const output = { name: 'p', got: ownP, want, within: bound(1, magnitude, 4) };
    return buffer === null || velocity === undefined ? [output] : [output, { name: 'buffer', got: buffer, want: velocity, within: bound(1, magnitude, 4) }];
  },
});

describe('the gate of adamw and sgd', () => {
  const shut = [
    { what: 'a loss that is NaN', squares: 1, losses: [1, NaN] },
    { what: 'a loss that is infinite', squares: 1, losses: [-Infinity] },
    { what: 'a gradient norm that is NaN', squares: NaN, losses: [1] },
    { what: 'a gradient norm that is infinite', squares: Infinity, losses: [1] },
  ];
  it.each(shut)('$what: nothing at all is written', async ({ squares, losses }) => {
    await using device = await openDevice('cpu');
    const start = Float32Array.from({ length: 100 }, (_, i) => i + 1);
    const [p, m, v, g] = [1, 2, 3, 4].map(() => device.tensor(start)) as [Tensor, Tensor, Tensor, Tensor];
    const gate = [device.tensor(Float32Array.of(squares)), device.tensor(Float32Array.from(losses)), 1, 1] as const;
    launch('adamw', p, m, v, g, ...gate, 0.1, 0.9, 0.999, 1e-8, 0.1, 0.1, 0.001);
    launch('sgd', p, m, g, ...gate, 0.1, 0.9, 0.1, 0);
    for (const tensor of [p, m, v]) expect(await tensor.data()).toEqual(start);
  });

  it('a gradient of zeros under a clip leaves the parameters to weight decay alone', async () => {
    await using device = await openDevice('cpu');
    const p = device.tensor(Float32Array.of(2));
    const [m, v, g] = [1, 2, 3].map(() => device.tensor(Float32Array.of(0))) as [Tensor, Tensor, Tensor];
    launch('adamw', p, m, v, g, device.tensor(Float32Array.of(0)), device.tensor(Float32Array.of(1)), 1, 1, 0.5, 0.9, 0.999, 1e-8, 0.5, 0.1, 0.001);
    expect(await p.data()).toEqual(Float32Array.of(1.5));
  });
});
