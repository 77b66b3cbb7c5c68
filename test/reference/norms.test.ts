import { describe, expect, test } from 'vitest';
import { of, opCases } from '../golden/read.ts';
import { dot, normals, slopes, worst } from './finite-difference.ts';
import { layerNorm, layerNormGrad } from './layer_norm.ts';
import { qkNorm, qkNormGrad } from './qk_norm.ts';
import { rmsNorm, rmsNormGrad } from './rms_norm.ts';

const shapes = [
  { N: 3, C: 7, eps: 1e-5 },
  { N: 1, C: 1, eps: 1e-2 },
  { N: 2, C: 13, eps: 0.3 },
];

describe('rms_norm', () => {
  test.each(shapes)('the gradient is the slope of the forward: $N x $C', ({ N, C, eps }) => {
    const [x, w, dy] = [normals(N * C, 1), normals(C, 2), normals(N * C, 3)];
    const f = (at: Float64Array) => dot(rmsNorm({ x: at, w, N, C, eps }).y, dy);
    expect(worst(rmsNormGrad({ dy, x, w, N, C, eps }), slopes(f, x))).toBeLessThan(1e-8);
  });

  test.each(opCases('rms_norm'))('agrees with PyTorch: $name', ({ numbers, arrays }) => {
    const sizes = { N: of(numbers, 'N'), C: of(numbers, 'C'), eps: of(numbers, 'eps') };
    const [x, w, dy] = [of(arrays, 'x'), of(arrays, 'w'), of(arrays, 'dy')];
    expect(worst(rmsNorm({ x, w, ...sizes }).y, of(arrays, 'y'))).toBeLessThan(1e-12);
    expect(worst(rmsNormGrad({ dy, x, w, ...sizes }), of(arrays, 'dx'))).toBeLessThan(1e-12);
  });

  test('a row of zeros stays zero and has r = 1/sqrt(eps)', () => {
    const { y, r } = rmsNorm({ x: [0, 0, 0], w: [1, 2, 3], N: 1, C: 3, eps: 0.25 });
    expect([...y, ...r]).toEqual([0, 0, 0, 2]);
  });
});

describe('layer_norm', () => {
  test.each(shapes)('the gradient is the slope of the forward: $N x $C', ({ N, C, eps }) => {
    const [x, w, b, dy] = [normals(N * C, 4), normals(C, 5), normals(C, 6), normals(N * C, 7)];
    const f = (at: Float64Array) => dot(layerNorm({ x: at, w, b, N, C, eps }).y, dy);
    expect(worst(layerNormGrad({ dy, x, w, b, N, C, eps }), slopes(f, x))).toBeLessThan(1e-8);
  });

  test.each(opCases('layer_norm'))('agrees with PyTorch: $name', ({ numbers, arrays }) => {
    const sizes = { N: of(numbers, 'N'), C: of(numbers, 'C'), eps: of(numbers, 'eps') };
    const [x, w, b, dy] = [of(arrays, 'x'), of(arrays, 'w'), of(arrays, 'b'), of(arrays, 'dy')];
    expect(worst(layerNorm({ x, w, b, ...sizes }).y, of(arrays, 'y'))).toBeLessThan(1e-12);
    expect(worst(layerNormGrad({ dy, x, w, b, ...sizes }), of(arrays, 'dx'))).toBeLessThan(1e-12);
  });
});

describe('qk_norm', () => {
  test('the gradient is the slope of the forward', () => {
    const sizes = { T: 2, H: 3, G: 1, D: 4, eps: 1e-3 };
    const [x, wq, wk, dy] = [normals(40, 8), normals(4, 9), normals(4, 10), normals(40, 11)];
    const f = (at: Float64Array) => dot(qkNorm({ x: at, wq, wk, ...sizes }).y, dy);
    expect(worst(qkNormGrad({ dy, x, wq, wk, ...sizes }), slopes(f, x))).toBeLessThan(1e-8);
  });

  test('r has one value per token and head, q heads first', () => {
    // D = 1 and eps = 0: r is 1/|x|.
    const { r } = qkNorm({ x: [1, 2, 4, 9, 8, 16, -32, 9], wq: [1], wk: [1], T: 2, H: 2, G: 1, D: 1, eps: 0 });
    expect([...r]).toEqual([1, 1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32]);
  });

  test.each(opCases('qk_norm'))('agrees with PyTorch: $name', ({ numbers, arrays }) => {
    const [T, H, G, D, eps] = ['T', 'H', 'G', 'D', 'eps'].map((key) => of(numbers, key)) as [number, number, number, number, number];
    const args = { x: of(arrays, 'x'), wq: of(arrays, 'wq'), wk: of(arrays, 'wk'), T, H, G, D, eps };
    expect(worst(qkNorm(args).y, of(arrays, 'y'))).toBeLessThan(1e-12);
    expect(worst(qkNormGrad({ ...args, dy: of(arrays, 'dy') }), of(arrays, 'dx'))).toBeLessThan(1e-12);
  });
});
