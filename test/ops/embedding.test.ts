import { describe, expect, it } from 'vitest';
import { openDevice } from '../../src/device.ts';
import { launch } from '../../src/kernel.ts';
import { embedding } from '../reference/embedding.ts';
import { parity } from './parity.ts';

// [tokens, width].
const sizes = [[0, 8], [1, 1], [2, 3], [3, 7], [5, 15], [4, 16], [3, 17], [6, 33], [37, 576]] as const;
const dtypes = ['f32', 'f16', 'bf16'] as const;
const [V, P] = [23, 9];

parity('embedding', {
  halves: 'any rows',
  cases: sizes.flatMap(([T, C]) => dtypes.flatMap((dtype) => [null, ...dtypes].map((positionDtype) => ({ T, C, dtype, positionDtype })))),
  run(bench, { T, C, dtype, positionDtype }) {
    const indices = (rows: number): number[] => Array.from(bench.random(T), (v) => Math.min(rows - 1, Math.floor(Math.abs(v) * 0.5 * rows)));
    const [ids, positions] = [indices(V), indices(P)];
    const table = bench.random(V * C, { dtype });
    const positionTable = bench.random(P * C, { dtype: positionDtype ?? 'f32' });
    const y = bench.activationOutput([T, C]);
    const given = positionDtype === null ? ([null, null] as const) : ([bench.ints(positions), bench.input(positionTable, [P, C], positionDtype)] as const);
    launch('embedding', y, bench.ints(ids), bench.input(table, [V, C], dtype), ...given);
    const own = embedding({ ids, table, T, C });
    const added = embedding({ ids: positions, table: positionTable, T, C });
    const want = positionDtype === null ? own : own.map((v, i) => Math.fround(v + (added[i] as number)));
    return [{ name: 'y', got: y, want: bench.rounded(want), within: () => 0 }];
  },
});

parity('embedding of what only a bad file holds', {
  cases: (['f16', 'bf16', 'f32'] as const).map((dtype) => ({ dtype })),
  run(bench, { dtype }) {
    const table = Float64Array.of(Infinity, -Infinity, NaN, 1, -0, 2 ** -14, -(2 ** -14), 2, 3);
    const y = bench.output([1, 9]);
    launch('embedding', y, bench.ints([0]), bench.input(table, [1, 9], dtype), null, null);
    return [{ name: 'y', got: y, want: table, within: () => 0 }];
  },
});

parity('embedding of f16 subnormals', {
  cases: [{ C: 40 }],
  run(bench, { C }) {
    const table = Float64Array.from({ length: C }, (_, i) => (i - 20) * 2 ** -24);
    const y = bench.output([1, C]);
    launch('embedding', y, bench.ints([0]), bench.input(table, [1, C], 'f16'), null, null);
    return [{ name: 'y', got: y, want: table, within: () => 0 }];
  },
});

describe('embedding', () => {
  const outside = [
    { what: 'id', ids: [0, 5, 1], positions: [0, 1, 2], says: 'id 5 at row 1 is outside [0, 5)' },
    { what: 'id', ids: [-1, 0, 0], positions: [0, 1, 2], says: 'id -1 at row 0 is outside [0, 5)' },
    { what: 'position', ids: [0, 4, 1], positions: [0, 1, 3], says: 'position 3 at row 2 is outside [0, 3)' },
  ];
  it.each(outside)('a bad $what is an error that says: $says; nothing is written', async ({ ids, positions, says }) => {
    await using device = await openDevice('cpu');
    const before = new Float32Array(6).fill(7);
    const y = device.tensor(before, [3, 2]);
    const [table, positionTable] = [device.tensor(new Float32Array(10), [5, 2]), device.tensor(new Float32Array(6), [3, 2])];
    launch('embedding', y, device.tensor(Int32Array.from(ids)), table, device.tensor(Int32Array.from(positions)), positionTable);
    await expect(device.fence()).rejects.toMatchObject({ code: 'ERR_RANGE', message: expect.stringContaining(says) as string });
    expect(await y.data()).toEqual(before);
  });
});
