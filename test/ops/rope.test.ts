import { describe, expect, it } from 'vitest';
import { openDevice } from '../../src/device.ts';
import { launch } from '../../src/kernel.ts';
import type { Bench } from './bench.ts';
import { rope, ropeGrad, ropeTable } from '../reference/rope.ts';
import { bound, parity } from './parity.ts';

// [tokens, query heads, key heads, head size, columns of the table].
const sizes = [[0, 1, 1, 4, 4], [1, 1, 1, 2, 2], [3, 2, 1, 6, 6], [2, 2, 2, 7, 6], [4, 4, 2, 32, 32], [3, 3, 1, 34, 34], [3, 2, 1, 34, 8], [5, 9, 3, 64, 64], [4, 6, 6, 48, 48], [2, 2, 1, 80, 32], [3, 1, 1, 5, 0]] as const;
const rows = 11;

const cases = sizes.flatMap(([T, H, G, D, E]) => [1, -1].map((direction) => ({ T, H, G, D, E, direction })));

parity('rope_inplace', {
  cases,
  halves: 'any rows',
  run(bench, { T, H, G, D, E, direction }) {
    const cols = (H + 2 * G) * D;
    const x = bench.randomActivation(T * cols);
    const positions = positionsOf(bench, T);
    const table = (E === 0 ? new Float64Array() : ropeTable({ P: rows, D: E, theta: 100 })).map(Math.fround);
    const turned = bench.activationInout(x, [T, cols]);
    launch('rope_inplace', turned, bench.ints(positions), bench.input(table, [rows, E]), H, G, direction);
    const want = partial({ x, positions, table, T, H, G, D, E, direction });
    // Two products and a sum: at most |a| + |b| is rounded, and |a| + |b| <= 2 max|x|.
    const most = x.reduce((m, v) => Math.max(m, Math.abs(v)), 0);
    const within = bound(2, 2 * most, 2);
    return [{ name: 'x', got: turned, want, within: (i) => (isTurned(i, { cols, D, E, heads: H + G }) ? within(i) : 0) }];
  },
});

interface Rotation {
  readonly x: Float64Array;
  readonly positions: readonly number[];
  readonly table: Float64Array;
  readonly T: number;
  readonly H: number;
  readonly G: number;
  readonly D: number;
  readonly E: number;
  readonly direction: number;
}

/** Of each head the first E numbers turned, the others as they were: the reference turns whole heads, so they are cut out for it. */
function partial({ x, positions, table, T, H, G, D, E, direction }: Rotation): Float64Array {
  const heads = H + 2 * G;
  const cut = Float64Array.from({ length: T * heads * E }, (_, i) => x[Math.floor(i / E) * D + (i % E)] as number);
  const args = { positions, table, T, H, G, D: E };
  const turned = direction === 1 ? rope({ x: cut, ...args }) : ropeGrad({ dy: cut, ...args });
  return x.map((v, i) => (i % D < E ? (turned[Math.floor(i / D) * E + (i % D)] as number) : v));
}

function isTurned(i: number, { cols, D, E, heads }: { cols: number; D: number; E: number; heads: number }): boolean {
  return Math.floor((i % cols) / D) < heads && i % D < E;
}

// Not rising, some twice: packed sequences start again, and generation starts anywhere.
function positionsOf(bench: Bench, count: number): number[] {
  return Array.from(bench.random(count), (v) => Math.min(rows - 1, Math.floor(Math.abs(v) * 5)));
}

describe('rope_inplace', () => {
  it.each([rows, -1, 2 ** 31 - 1])('position %i is an error that names it and its row, and turns nothing', async (position) => {
    await using device = await openDevice('cpu');
    const before = new Float32Array(3 * 8).fill(1);
    const x = device.tensor(before, [3, 8]);
    const table = device.tensor(new Float32Array(rows * 2), [rows, 2]);
    launch('rope_inplace', x, device.tensor(Int32Array.of(0, 1, position)), table, 2, 1, 1);
    await expect(device.fence()).rejects.toMatchObject({ code: 'ERR_RANGE', message: expect.stringContaining(`position ${position} at row 2 is outside [0, ${rows})`) as string });
    expect(await x.data()).toEqual(before);
  });
});
