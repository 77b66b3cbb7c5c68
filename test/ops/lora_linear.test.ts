import type { WeightOrder } from '../../src/device.ts';
import { launch } from '../../src/kernel.ts';
import type { DType } from '../../src/tensor.ts';
import { linear, linearGrad } from '../reference/linear.ts';
import { loraLinear, loraLinearGrad } from '../reference/lora_linear.ts';
import type { Bench } from './bench.ts';
import { bound, parity } from './parity.ts';
import { frozenFactor, frozenWeight, sum } from './weights.ts';

interface Case {
  readonly T: number;
  readonly K: number;
  readonly parts: readonly number[];
  readonly ranks: readonly number[];
  readonly dtype: DType;
  readonly order: WeightOrder;
  readonly dropout: number;
  readonly extras: boolean; // bias and a carry that is y; dx is asked for
}

// [T, K, parts, ranks]: decoding (T <= 32), ragged everything, an empty part, ranks from none to wider than a tile; more tokens than a chunk
// of CUDA's sums (2,048).
const sizes: readonly (readonly [number, number, readonly number[], readonly number[]])[] = [
  [0, 8, [8], [2]], [1, 1, [1], [1]], [2, 33, [17, 5], [4, 0]], [4, 70, [40, 8, 8], [8, 3, 16]], [3, 0, [5], [2]],
  [5, 7, [3], [1]], [14, 16, [32], [16]], [15, 17, [33, 16], [2, 5]], [29, 97, [20, 0, 31], [8, 4, 0]], [16, 40, [24], [0]],
  [31, 400, [70], [33]], [33, 7, [3], [1]], [43, 97, [20, 0, 31], [8, 4, 0]], [36, 40, [24], [0]], [47, 400, [70], [33]], [64, 130, [96, 32, 32], [8, 8, 8]], [70, 45, [130], [64]], [2100, 3, [5], [2]],
];
const formats: readonly (readonly [DType, WeightOrder])[] = [['f32', 'out_in'], ['f16', 'in_out'], ['bf16', 'out_in']];
const cases: readonly Case[] = sizes.flatMap(([T, K, parts, ranks], i) =>
  formats.flatMap(([dtype, order], j) => [0, 0.3].map((dropout) => ({ T, K, parts, ranks, dtype, order, dropout, extras: (i + j) % 2 === 0 }))));

const scales = [0.5, 2, 1.25];
const layers = [7, 4294967295, 0];
const seed = [123456789, 3000000000] as const;
const step = 41;

interface Operands {
  readonly x: Float64Array;
  readonly W: Float64Array;
  readonly b: Float64Array;
  readonly A: Float64Array;
  readonly B: Float64Array;
}

function argumentsOf({ T, K, parts, ranks, dropout }: Case, operands: Operands) {
  return {
    ...operands, T, K,
    parts: parts.map((N, i) => ({ N, r: ranks[i] as number, s: scales[i] as number, layer: layers[i] as number })),
    dropout: dropout > 0 ? { p: Math.fround(dropout), seed, step } : undefined,
  };
}

const absolute = (values: Float64Array): Float64Array => values.map(Math.abs);

function absolutes({ x, W, b, A, B }: Operands): Operands {
  return { x: absolute(x), W: absolute(W), b: absolute(b), A: absolute(A), B: absolute(B) };
}

function operandsOf(bench: Bench, { T, K, parts, ranks, dtype, order, extras }: Case) {
  const N = sum(parts);
  const { values: W, weight } = frozenWeight(bench, parts, K, dtype, order);
  const b = extras ? bench.random(N) : new Float64Array(N);
  const bCount = sum(parts.map((out, i) => out * (ranks[i] as number)));
  return { weight, operands: { x: bench.random(T * K), W, b, A: bench.random(sum(ranks) * K), B: bench.random(bCount) } };
}

/** The scalars of the contract, in its order. */
function scalars({ ranks, dropout }: Case): number[] {
  return [...[0, 1, 2].map((i) => ranks[i] ?? 0), ...scales, ...layers, dropout, ...seed, step];
}

const lengthOf = ({ T, K, parts, ranks }: Case): number => Math.max(T, K, sum(parts)) + sum(ranks);

parity('lora_linear', {
  cases, frozen: true,
  tooBigToEmulate: ({ T, K, parts, dtype }) => T * K * sum(parts) > 300_000 && dtype !== 'bf16',
  run(bench, testCase) {
    const { T, K, parts, ranks, extras } = testCase;
    const [N, R] = [sum(parts), sum(ranks)];
    const { weight, operands } = operandsOf(bench, testCase);
    const { x, b, A, B } = operands;
    const carried = extras ? bench.random(T * N) : new Float64Array(T * N);
    const y = extras ? bench.inout(carried, [T, N]) : bench.output([T, N]);
    const u = bench.output([T, R]);
    launch('lora_linear', y, u, bench.input(x, [T, K]), weight, extras ? bench.input(b, [N]) : null, extras ? y : null,
      bench.input(A, [R, K]), bench.input(B, [B.length]), ...scalars(testCase));
    const [want, most] = [loraLinear(argumentsOf(testCase, operands)), loraLinear(argumentsOf(testCase, absolutes(operands)))];
    const length = 2 * lengthOf(testCase);
    const rounded = linear({ x: frozenFactor(bench, x, T), W: frozenFactor(bench, operands.W, T), T, N, K });
    const exact = linear({ x, W: operands.W, T, N, K });
    return [
      { name: 'y', got: y, want: want.y.map((v, i) => v + (rounded[i] as number) - (exact[i] as number) + (carried[i] as number)), within: bound(length, most.y.map((v, i) => v + Math.abs(carried[i] as number))) },
      { name: 'u', got: u, want: want.u, within: bound(length, most.u) },
    ];
  },
});

parity('lora_linear_grad', {
  cases, frozen: true,
  tooBigToEmulate: ({ T, K, parts, dtype }) => T * K * sum(parts) > 300_000 && dtype !== 'bf16',
  run(bench, testCase) {
    const { T, K, parts, ranks, extras } = testCase;
    const [N, R] = [sum(parts), sum(ranks)];
    const { weight, operands } = operandsOf(bench, testCase);
    const { x, A, B } = operands;
    const [dy, into] = [bench.random(T * N), { dA: bench.random(R * K), dB: bench.random(B.length) }];
    const [dA, dB] = [bench.inout(into.dA, [R, K]), bench.inout(into.dB, [B.length])];
    const dx = extras ? bench.output([T, K]) : null;
    const u = loraLinear(argumentsOf(testCase, operands)).u.map(Math.fround);
    launch('lora_linear_grad', dx, dA, dB, bench.input(dy, [T, N]), bench.input(x, [T, K]), bench.input(u, [T, R]), weight,
      bench.input(A, [R, K]), bench.input(B, [B.length]), ...scalars(testCase));
    const want = loraLinearGrad({ ...argumentsOf(testCase, operands), dy, into });
    const most = loraLinearGrad({ ...argumentsOf(testCase, absolutes(operands)), dy: absolute(dy), into: { dA: absolute(into.dA), dB: absolute(into.dB) } });
    const length = 3 * lengthOf(testCase);
    const rounded = linearGrad({ dy: frozenFactor(bench, dy, Infinity), W: frozenFactor(bench, operands.W, Infinity), T, N, K });
    const exact = linearGrad({ dy, W: operands.W, T, N, K });
    const outputs = [
      { name: 'dA', got: dA, want: want.dA, within: bound(length, most.dA) },
      { name: 'dB', got: dB, want: want.dB, within: bound(length, most.dB) },
    ];
    return dx === null ? outputs : [...outputs, { name: 'dx', got: dx, want: want.dx.map((v, i) => v + (rounded[i] as number) - (exact[i] as number)), within: bound(length, most.dx) }];
  },
});
