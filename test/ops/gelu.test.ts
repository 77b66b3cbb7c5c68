import { describe, expect, it } from 'vitest';
import { openDevice } from '../../src/device.ts';
import { launch } from '../../src/kernel.ts';
import { gelu, geluGrad, type GeluKind } from '../reference/gelu.ts';
import { bound, parity } from './parity.ts';

const kinds: readonly GeluKind[] = ['erf', 'tanh']; // by form
const shapes = [[0], [1], [3], [15], [16], [17], [4, 33], [2, 5, 97], [3, 16390]] as const;
// 8: most of the values are on a tail.
const cases = shapes.flatMap((shape) => [1, 8].flatMap((scale) => kinds.map((kind) => ({ shape, scale, kind }))));

parity('gelu', {
  cases,
  halves: 'any rows',
  run(bench, { shape, scale, kind }) {
    const count = shape.reduce((n: number, dim) => n * dim, 1);
    const x = bench.randomActivation(count, { scale });
    const y = bench.activationOutput(shape);
    launch('gelu', y, bench.activation(x, shape), kinds.indexOf(kind));
    const want = bench.once(() => gelu({ x, kind }));
    return [{ name: 'y', got: y, want, within: bound(1, bench.once(() => x.map((z) => z * step(z))), 16) }];
  },
});

parity('gelu_grad', {
  halves: 'any rows',
  cases: cases.flatMap((testCase) => (['apart', 'dx is x', 'dx is dy'] as const).map((alias) => ({ ...testCase, alias }))),
  run(bench, { shape, scale, kind, alias }) {
    const count = shape.reduce((n: number, dim) => n * dim, 1);
    const [x, dy] = [bench.randomActivation(count, { scale }), bench.randomActivation(count)];
    const stored = alias === 'dx is x' ? bench.activationInout(x, shape) : bench.activation(x, shape);
    const arrived = alias === 'dx is dy' ? bench.activationInout(dy, shape) : bench.activation(dy, shape);
    const dx = alias === 'apart' ? bench.activationOutput(shape) : alias === 'dx is x' ? stored : arrived;
    launch('gelu_grad', dx, arrived, stored, kinds.indexOf(kind));
    const want = bench.once(() => geluGrad({ dy, x, kind }));
    const magnitude = bench.once(() => x.map((z, i) => (dy[i] as number) * step(z) * (1 + z * z)));
    return [{ name: 'dx', got: dx, want, within: bound(1, magnitude, 16) }];
  },
});

/**
 * How large Phi(z) is as far as rounding is concerned: on the lower tail exp(-z^2/2), whose exponent, rounded, costs as many roundings
 * as it is large. 2^-40 is where the oracle's own 1 + tanh ends.
 */
function step(z: number): number {
  return z > 0 ? 1 : Math.exp((-z * z) / 2) * (1 + z * z) + 2 ** -40;
}

describe('gelu', () => {
  const far = [-3.4e38, -1e20, -40, -15, 15, 40, 1e20, 3.4e38];

  it.each(kinds)('%s: far from zero it is x or 0, and its slope 1 or 0, never NaN', async (kind) => {
    const [y, dx] = await forwardAndBack(far, kind);
    expect(y.map((v) => v + 0)).toEqual(Float32Array.from(far, (z) => Math.max(z, 0)));
    expect(dx.map((v) => v + 0)).toEqual(Float32Array.from(far, (z) => (z > 0 ? 1 : 0)));
  });

  it.each(kinds)('%s: NaN stays NaN, its neighbours stay numbers', async (kind) => {
    const [y, dx] = await forwardAndBack([1, NaN, 0], kind);
    expect(Array.from(y, Number.isNaN)).toEqual([false, true, false]);
    expect(Array.from(dx, Number.isNaN)).toEqual([false, true, false]);
  });

  it('erf: the lower tail keeps its digits', async () => {
    const [y] = await forwardAndBack([-10], 'erf');
    expect((y[0] as number) / (-10 * 7.61985302416052e-24)).toBeCloseTo(1, 5); // Phi(-10), mpmath
  });
});

async function forwardAndBack(values: readonly number[], kind: GeluKind): Promise<[Float32Array, Float32Array]> {
  await using device = await openDevice('cpu');
  const x = device.tensor(Float32Array.from(values));
  const ones = device.tensor(new Float32Array(values.length).fill(1));
  const [y, dx] = [device.empty([values.length]), device.empty([values.length])];
  launch('gelu', y, x, kinds.indexOf(kind));
  launch('gelu_grad', dx, ones, x, kinds.indexOf(kind));
  return [await y.data(), await dx.data()];
}
