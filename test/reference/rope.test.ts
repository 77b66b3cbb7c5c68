import { describe, expect, test } from 'vitest';
import { of, opCases } from '../golden/read.ts';
import { dot, normals, slopes, worst } from './finite-difference.ts';
import { rope, ropeGrad, ropeTable } from './rope.ts';

describe('rope', () => {
  const sizes = { T: 3, H: 2, G: 1, D: 4 };
  const table = ropeTable({ P: 8, D: 4, theta: 100 });
  const positions = [7, 0, 2];

  test('the gradient is the slope of the forward', () => {
    const [x, dy] = [normals(48, 1), normals(48, 2)];
    const f = (at: Float64Array) => dot(rope({ x: at, positions, table, ...sizes }), dy);
    expect(worst(ropeGrad({ dy, positions, table, ...sizes }), slopes(f, x))).toBeLessThan(1e-8);
  });

  test('the gradient undoes the rotation, and v heads pass unchanged', () => {
    const x = normals(48, 3);
    const y = rope({ x, positions, table, ...sizes });
    expect(worst(ropeGrad({ dy: y, positions, table, ...sizes }), x)).toBeLessThan(1e-14);
    for (let t = 0; t < 3; t++) expect(y.slice(t * 16 + 12, t * 16 + 16)).toEqual(x.slice(t * 16 + 12, t * 16 + 16));
  });

  test('with E below D, the first E numbers of a head turn as a head of E would, and the others stay', () => {
    const [x, part] = [normals(8, 4), { T: 1, H: 1, G: 0 }];
    const y = rope({ x, positions: [5], table, ...part, D: 8, E: 4 });
    expect(y.slice(0, 4)).toEqual(rope({ x: x.slice(0, 4), positions: [5], table, ...part, D: 4 }));
    expect(y.slice(4)).toEqual(x.slice(4));
  });

  test.each(opCases('rope'))('agrees with transformers: $name', ({ numbers, arrays }) => {
    const size = (key: string) => of(numbers, key);
    const [theirs, at] = [of(arrays, 'table'), of(arrays, 'positions')];
    const args = { positions: at, table: theirs, T: size('T'), H: size('H'), G: size('G'), D: size('D') };
    expect(worst(rope({ x: of(arrays, 'x'), ...args }), of(arrays, 'y'))).toBeLessThan(1e-12);
    expect(worst(ropeGrad({ dy: of(arrays, 'dy'), ...args }), of(arrays, 'dx'))).toBeLessThan(1e-12);
    // transformers computes its table in f32: angles up to 11 carry 1e-6.
    expect(worst(ropeTable({ P: size('P'), D: size('D'), theta: size('theta') }), theirs)).toBeLessThan(2e-6);
  });
});
