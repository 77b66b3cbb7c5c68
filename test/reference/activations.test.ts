import { describe, expect, test } from 'vitest';
import { of, opCases } from '../golden/read.ts';
import { dot, normals, slopes, worst } from './finite-difference.ts';
import { erfc, gelu, geluGrad, type GeluKind } from './gelu.ts';
import { swiglu, swigluGrad } from './swiglu.ts';

describe('swiglu', () => {
  test('the gradient is the slope of the forward', () => {
    const [x, dy] = [normals(24, 1), normals(12, 2)];
    const f = (at: Float64Array) => dot(swiglu({ x: at, T: 3, F: 4 }), dy);
    expect(worst(swigluGrad({ dy, x, T: 3, F: 4 }), slopes(f, x))).toBeLessThan(1e-8);
  });

  test.each(opCases('swiglu'))('agrees with PyTorch: $name', ({ numbers, arrays }) => {
    const args = { x: of(arrays, 'x'), T: of(numbers, 'T'), F: of(numbers, 'F') };
    expect(worst(swiglu(args), of(arrays, 'y'))).toBeLessThan(1e-12);
    expect(worst(swigluGrad({ dy: of(arrays, 'dy'), ...args }), of(arrays, 'dx'))).toBeLessThan(1e-12);
  });

  test('gates of ±1000 give finite values', () => {
    expect([...swiglu({ x: [-1000, 1000, 2, 2], T: 1, F: 2 })].map((v) => v + 0)).toEqual([0, 2000]);
  });
});

describe('gelu', () => {
  test.each(['erf', 'tanh'] as const)('the gradient is the slope of the forward: %s', (kind) => {
    const x = Float64Array.from([...normals(20, 3), 0, 4, -4, 2.83, -2.83]);
    const dy = normals(25, 4);
    const f = (at: Float64Array) => dot(gelu({ x: at, kind }), dy);
    expect(worst(geluGrad({ dy, x, kind }), slopes(f, x))).toBeLessThan(1e-8);
  });

  test.each(opCases('gelu'))('agrees with PyTorch: $name', ({ name, arrays }) => {
    const args = { x: of(arrays, 'x'), kind: name as GeluKind };
    expect(worst(gelu(args), of(arrays, 'y'))).toBeLessThan(1e-12);
    expect(worst(geluGrad({ dy: of(arrays, 'dy'), ...args }), of(arrays, 'dx'))).toBeLessThan(1e-12);
  });

  test('erfc has its tabulated values, in the tail too', () => {
    const table = [[0, 1], [0.5, 0.4795001221869535], [2, 4.677734981047266e-3], [5, 1.5374597944280349e-12], [-1, 1.8427007929497148]];
    for (const [x, value] of table) expect(Math.abs(erfc(x!) / value! - 1)).toBeLessThan(1e-13);
  });
});
