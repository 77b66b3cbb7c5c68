import { describe, expect, test } from 'vitest';
import { of, opCases } from '../golden/read.ts';
import { dropoutFactors } from './dropout.ts';
import { embedding } from './embedding.ts';
import { dot, normals, slopes, worst } from './finite-difference.ts';
import { linear, linearGrad } from './linear.ts';
import { loraLinear, loraLinearGrad, loraMerge } from './lora_linear.ts';

describe('linear', () => {
  test('y = x Wᵀ + b by hand', () => {
    const y = linear({ x: [1, 2, 3, 4], W: [1, 0, 0, 1, 1, 1], b: [10, 20, 30], T: 2, N: 3, K: 2 });
    expect([...y]).toEqual([11, 22, 33, 13, 24, 37]);
  });

  test('the gradient is the slope of the forward', () => {
    const sizes = { T: 3, N: 4, K: 5 };
    const [x, W, dy] = [normals(15, 1), normals(20, 2), normals(12, 3)];
    const f = (at: Float64Array) => dot(linear({ x: at, W, ...sizes }), dy);
    expect(worst(linearGrad({ dy, W, ...sizes }), slopes(f, x))).toBeLessThan(1e-8);
  });
});

describe('lora_linear', () => {
  const parts = [{ N: 4, r: 2, s: 1.5, layer: 3 }, { N: 2, r: 0, s: 9, layer: 4 }, { N: 3, r: 1, s: 0.5, layer: 5 }];
  const sizes = { T: 3, K: 5, parts };
  const operands = { x: normals(15, 1), W: normals(45, 2), b: normals(9, 3), A: normals(15, 4), B: normals(11, 5) };
  const dy = normals(27, 6);

  test.each([
    { name: 'no dropout', dropout: undefined },
    { name: 'dropout 0.4', dropout: { p: 0.4, seed: [1, 2] as const, step: 4 } },
  ])('the gradients are the slopes of the forward: $name', ({ dropout }) => {
    const args = { ...operands, ...sizes, dropout };
    const grads = loraLinearGrad({ dy, ...args });
    const f = (change: object) => dot(loraLinear({ ...args, ...change }).y, dy);
    expect(worst(grads.dx, slopes((x) => f({ x }), args.x))).toBeLessThan(1e-8);
    expect(worst(grads.dA, slopes((A) => f({ A }), args.A))).toBeLessThan(1e-8);
    expect(worst(grads.dB, slopes((B) => f({ B }), args.B))).toBeLessThan(1e-8);
  });

  test('gradients are added to what was there, and the given arrays stay as they were', () => {
    const args = { dy, ...operands, ...sizes };
    const into = { dA: normals(15, 7), dB: normals(11, 8) };
    const fresh = loraLinearGrad(args);
    const added = loraLinearGrad({ ...args, into });
    expect(worst(added.dA, fresh.dA.map((g, i) => g + into.dA[i]!))).toBeLessThan(1e-12);
    expect(worst(added.dB, fresh.dB.map((g, i) => g + into.dB[i]!))).toBeLessThan(1e-12);
    expect(into.dA).toEqual(normals(15, 7));
  });

  test('equals a linear with the merged weight', () => {
    const { x, b, A, B } = operands;
    const W = Float64Array.from(operands.W);
    let [n0, r0, b0] = [0, 0, 0];
    for (const { N, r, s } of parts) {
      const [w, a] = [W.slice(n0 * 5, (n0 + N) * 5), A.slice(r0 * 5, (r0 + r) * 5)];
      W.set(loraMerge({ W: w, A: a, B: B.slice(b0, b0 + N * r), N, K: 5, r, scale: s, order: 'out_in' }), n0 * 5);
      [n0, r0, b0] = [n0 + N, r0 + r, b0 + N * r];
    }
    const merged = linear({ x, W, b, T: 3, N: 9, K: 5 });
    expect(worst(loraLinear({ ...operands, ...sizes }).y, merged)).toBeLessThan(1e-13);
  });

  test('u is the scaled, dropped-out x times Aᵀ, each part with a mask of its own', () => {
    const dropout = { p: 0.5, seed: [7, 0] as const, step: 2 };
    const { u } = loraLinear({ ...operands, ...sizes, dropout });
    const uOf = (layer: number, A: Float64Array, s: number) => {
      const factors = dropoutFactors(dropout, layer, 15);
      const dropped = operands.x.map((value, i) => value * factors[i]!);
      return linear({ x: dropped, W: A, T: 3, N: A.length / 5, K: 5 }).map((value) => s * value);
    };
    const [first, last] = [uOf(3, operands.A.slice(0, 10), 1.5), uOf(5, operands.A.slice(10), 0.5)];
    const expected = [0, 1, 2].flatMap((t) => [first[2 * t]!, first[2 * t + 1]!, last[t]!]);
    expect(worst(u, expected)).toBeLessThan(1e-14);
  });

  test.each(opCases('lora_linear'))('agrees with PEFT: $name', ({ numbers, arrays }) => {
    const [N, r, s] = [of(arrays, 'N'), of(arrays, 'r'), of(arrays, 's')];
    const args = {
      x: of(arrays, 'x'), W: of(arrays, 'W'), b: of(arrays, 'b'), A: of(arrays, 'A'), B: of(arrays, 'B'),
      parts: N.map((width, i) => ({ N: width, r: r[i]!, s: s[i]!, layer: i })), T: of(numbers, 'T'), K: of(numbers, 'K'),
    };
    expect(worst(loraLinear(args).y, of(arrays, 'y'))).toBeLessThan(1e-12);
    const grads = loraLinearGrad({ dy: of(arrays, 'dy'), ...args });
    for (const name of ['dx', 'dA', 'dB'] as const) expect(worst(grads[name], of(arrays, name))).toBeLessThan(1e-12);
  });
});

test('lora_merge: a weight stored [K, N] gets B A transposed', () => {
  const operands = { A: [1, 10], B: [2, 3, 4], N: 3, K: 2, r: 1, scale: 0.5 };
  const W = [0, 0, 0, 100, 100, 100];
  expect([...loraMerge({ W, ...operands, order: 'in_out' })]).toEqual([1, 1.5, 2, 110, 115, 120]);
});

test('linear, lora_linear: carry is added once', () => {
  const [x, W, carry] = [[1, 2], [3, 4], [1000]];
  expect([...linear({ x, W, carry, T: 1, N: 1, K: 2 })]).toEqual([1011]);
  const parts = [{ N: 1, r: 1, s: 2, layer: 0 }];
  expect([...loraLinear({ x, W, carry, A: [1, 1], B: [10], parts, T: 1, K: 2 }).y]).toEqual([1071]);
});

test('embedding: adds the row of the position table', () => {
  const args = { ids: [1, 0], table: [1, 2, 3, 4], T: 2, C: 2 };
  expect([...embedding({ ...args, positions: [0, 2], positionTable: [10, 20, 30, 40, 50, 60] })]).toEqual([13, 24, 51, 62]);
});

test('embedding: takes the rows of its ids, repeats included', () => {
  expect([...embedding({ ids: [2, 0, 2], table: [1, 2, 3, 4, 5, 6], T: 3, C: 2 })]).toEqual([5, 6, 1, 2, 5, 6]);
});
