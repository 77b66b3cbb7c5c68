import { describe, expect, it } from 'vitest';
import { openDevice } from '../../src/device.ts';
import { launch } from '../../src/kernel.ts';
import type { DType } from '../../src/tensor.ts';
import { bf16Bits, bf16Value, f16Bits, f16Value } from '../reference/half.ts';
import { roundTo } from './bench.ts';
import { parity } from './parity.ts';

const shapes = [[0], [1], [3], [2, 4], [3, 5], [16], [17], [31], [33], [5, 13, 11], [2, 16387]] as const;
const countOf = (shape: readonly number[]): number => shape.reduce((n, dim) => n * dim, 1);
const exact = () => 0;

parity('copy', {
  cases: shapes.flatMap((shape) => (['f32', 'f16', 'i32'] as const).map((dtype) => ({ shape, dtype }))),
  run(bench, { shape, dtype }) {
    const x = bench.random(countOf(shape), { scale: 1000, dtype });
    const y = bench.output(shape, dtype);
    launch('copy', y, bench.input(x, shape, dtype));
    return [{ name: 'y', got: y, want: x, within: exact }];
  },
});

parity('copy of an activation', {
  halves: 'any rows',
  cases: shapes.map((shape) => ({ shape })),
  run(bench, { shape }) {
    const x = bench.randomActivation(countOf(shape), { scale: 1000 });
    const y = bench.activationOutput(shape);
    launch('copy', y, bench.activation(x, shape));
    return [{ name: 'y', got: y, want: x, within: exact }];
  },
});

parity('add', {
  halves: 'any rows',
  cases: shapes.flatMap((shape) => (['apart', 'y is a', 'y is b'] as const).map((alias) => ({ shape, alias }))),
  run(bench, { shape, alias }) {
    const [a, b] = [bench.randomActivation(countOf(shape)), bench.randomActivation(countOf(shape))];
    const left = alias === 'y is a' ? bench.activationInout(a, shape) : bench.activation(a, shape);
    const right = alias === 'y is b' ? bench.activationInout(b, shape) : bench.activation(b, shape);
    const y = alias === 'apart' ? bench.activationOutput(shape) : alias === 'y is a' ? left : right;
    launch('add', y, left, right);
    return [{ name: 'y', got: y, want: bench.once(() => bench.rounded(a.map((v, i) => Math.fround(v + (b[i] as number))))), within: exact }];
  },
});

parity('fill', {
  halves: 'any rows',
  cases: shapes.flatMap((shape) => [0, -0.1, Infinity].map((value) => ({ shape, value }))),
  run(bench, { shape, value }) {
    const y = bench.activationOutput(shape);
    launch('fill', y, value);
    return [{ name: 'y', got: y, want: bench.once(() => bench.rounded(new Float64Array(countOf(shape)).fill(value))), within: exact }];
  },
});

const floats = ['f32', 'f16', 'bf16'] as const;

parity('cast', {
  cases: floats.flatMap((from) => floats.flatMap((to) => [0, 1, 7, 8, 33, 20011].map((count) => ({ from, to, count })))),
  run(bench, { from, to, count }) {
    const x = bench.random(count, { dtype: from });
    const y = bench.output([count], to);
    launch('cast', y, bench.input(x, [count], from));
    return [{ name: 'y', got: y, want: bench.once(() => x.map((v) => roundTo(v, to))), within: exact }];
  },
});

parity('cast to an activation', {
  halves: 'any rows',
  cases: [...shapes, [4, 40]].map((shape) => ({ shape })),
  run(bench, { shape }) {
    const x = bench.random(countOf(shape));
    const y = bench.activationOutput(shape);
    launch('cast', y, bench.input(x, shape));
    return [{ name: 'y', got: y, want: bench.once(() => bench.rounded(x)), within: exact }];
  },
});

parity('cast of an activation', {
  halves: 'any rows',
  cases: [...shapes, [4, 40]].map((shape) => ({ shape })),
  run(bench, { shape }) {
    const x = bench.randomActivation(countOf(shape));
    const y = bench.output(shape);
    launch('cast', y, bench.activation(x, shape));
    return [{ name: 'y', got: y, want: x, within: exact }];
  },
});

/** Where rounding goes wrong: zeros, subnormals and their edges, ties, the largest number and what is beyond it. */
const edges = [
  0, -0, 2 ** -149, 2 ** -133, -(2 ** -127), 2 ** -126, 2 ** -25, 2 ** -25 * (1 + 2 ** -20), 2 ** -24, 3 * 2 ** -25, -1023 * 2 ** -24, 1023.5 * 2 ** -24, 2 ** -14,
  1 + 2 ** -11, 1 + 3 * 2 ** -11, 1 + 2 ** -8, 1 + 3 * 2 ** -8, -(1 + 2 ** -11 + 2 ** -23), 2047.5, 65504, 65519, 65520, -65536, 3.3e38, 3.4e38, -3.4028234e38, Infinity, -Infinity, NaN,
];

describe('cast', () => {
  it.each([['f16', f16Bits], ['bf16', bf16Bits]] as const)('from f32 to %s: the bits of the nearest number, ties to even, subnormals kept', async (to, bitsOf) => {
    const got = await castBits(new Uint8Array(Float32Array.from(edges).buffer), 'f32', to);
    expect(Array.from(new Uint16Array(got))).toEqual(edges.map(bitsOf));
  });

  it.each([['f16', f16Value], ['bf16', bf16Value]] as const)('from %s to f32: each of the 65,536 patterns is exact', async (from, valueOf) => {
    const patterns = Uint16Array.from({ length: 65536 }, (_, i) => i);
    const got = new Float32Array(await castBits(new Uint8Array(patterns.buffer), from, 'f32'));
    const wrong = patterns.filter((bits, i) => !Object.is(got[i], valueOf(bits)));
    expect(Array.from(wrong)).toEqual([]);
  });

  it.each([['f16', 'bf16', f16Value, bf16Bits], ['bf16', 'f16', bf16Value, f16Bits]] as const)('from %s to %s: each of the 65,536 patterns is rounded once', async (from, to, valueOf, bitsOf) => {
    const patterns = Uint16Array.from({ length: 65536 }, (_, i) => i);
    const got = new Uint16Array(await castBits(new Uint8Array(patterns.buffer), from, to));
    const wrong = patterns.filter((bits, i) => got[i] !== bitsOf(valueOf(bits)));
    expect(Array.from(wrong)).toEqual([]);
  });
});

async function castBits(bytes: Uint8Array, from: DType, to: DType): Promise<ArrayBuffer> {
  await using device = await openDevice('cpu');
  const count = bytes.length / (from === 'f32' ? 4 : 2);
  const [x, y] = [device.empty([count], from), device.empty([count], to)];
  x.upload(bytes);
  launch('cast', y, x);
  return await y.bytes(); // before the device is closed
}
