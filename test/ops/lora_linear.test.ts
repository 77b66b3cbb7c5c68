import type { WeightOrder } from '../../src/device.ts';
import { launch } from '../../src/kernel.ts';
import type { DType } from '../../src/tensor.ts';
import { linear, linearGrad } from '../reference/linear.ts';
import { loraLinear, loraLinearGrad } from '../reference/lora_linear.ts';
import type { Bench } from './bench.ts';
import { bound, parity } from './parity.ts';
import { frozenFactor, frozenWeight, halfRounding, roundedBeforeAdding, sum } from './weights.ts';

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

// [T, K, parts, ranks]: decoding (T <= 32), ragged everything, an empty part, ranks from none to wider than a tile; more low-rank runs than
// others for them to ride on; more tokens than a chunk of CUDA's sums (2,048).
const sizes: readonly (readonly [number, number, readonly number[], readonly number[]])[] = [
  [0, 8, [8], [2]], [1, 1, [1], [1]], [2, 33, [17, 5], [4, 0]], [4, 70, [40, 8, 8], [8, 3, 16]], [3, 0, [5], [2]],
  [5, 7, [3], [1]], [14, 16, [32], [16]], [15, 17, [33, 16], [2, 5]], [29, 97, [20, 0, 31], [8, 4, 0]], [16, 40, [24], [0]],
  [31, 400, [70], [33]], [33, 7, [3], [1]], [43, 97, [20, 0, 31], [8, 4, 0]], [36, 40, [24], [0]], [47, 400, [70], [33]], [64, 130, [96, 32, 32], [8, 8, 8]], [70, 45, [130], [64]],
  [40, 50, [24, 16], [140, 6]], [33, 523, [24], [70]], [37, 88, [40], [12]], [2100, 3, [5], [2]],
];
const formats: readonly (readonly [DType, WeightOrder])[] = [['f32', 'out_in'], ['f16', 'in_out'], ['bf16', 'out_in']];
// p counts to 16 bits: one that drops nothing, one that drops all but one of 65,536.
const extremes = [2 ** -17, 0.99999].map((dropout): Case => ({ T: 300, K: 521, parts: [24, 8], ranks: [3, 5], dtype: 'f32', order: 'out_in', dropout, extras: false }));
const cases: readonly Case[] = sizes.flatMap(([T, K, parts, ranks], i) =>
  formats.flatMap(([dtype, order], j) => [0, 0.3].map((dropout) => ({ T, K, parts, ranks, dtype, order, dropout, extras: (i + j) % 2 === 0 })))).concat(extremes);

// In 16 bits weights are held as activations are, whatever they were stored in. test/cusim/kernels has more of the adapter.
const inHalves = ({ T, dtype }: Case): boolean => dtype !== 'f32' && [0, 1, 2, 3, 4, 29, 31, 37, 64, 70].includes(T);

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
  return { weight, operands: { x: bench.randomActivation(T * K), W, b, A: bench.random(sum(ranks) * K), B: bench.random(bCount) } };
}

/** The scalars of the contract, in its order. */
function scalars({ ranks, dropout }: Case): number[] {
  return [...[0, 1, 2].map((i) => ranks[i] ?? 0), ...scales, ...layers, dropout, ...seed, step];
}

/**
 * What the adapter may be off by with activations of 16 bits. Its factors stand there in two halves, high and low, and the product of both
 * low ones is left out. `coarse`: in a border without room for three times the ranks some are rounded once.
 */
function adapterRounding(bench: Bench, { ranks, extras }: Case): { readonly split: number; readonly coarse: number } {
  const [half, R, room] = [halfRounding(bench), sum(ranks), extras ? 62 : 64];
  return { split: 4 * half ** 2, coarse: 3 * R <= room || R > 64 ? 0 : (2 * R <= room ? 1.1 : 2.2) * half };
}

/** f16 has nothing between multiples of 2^-24; products with what was lost there. */
const smallest = (bench: Bench): number => (bench.activations === 'f16' ? 2 ** -20 : 0);

const lengthOf = ({ T, K, parts, ranks }: Case): number => Math.max(T, K, sum(parts)) + sum(ranks);

parity('lora_linear', {
  cases, frozen: true, halves: 'any rows', inHalves,
  tooBigToEmulate: ({ T, K, parts, dtype }) => T * K * sum(parts) > 300_000 && dtype !== 'bf16',
  run(bench, testCase) {
    const { T, K, parts, ranks, extras } = testCase;
    const [N, R] = [sum(parts), sum(ranks)];
    const { weight, operands } = operandsOf(bench, testCase);
    const { x, b, A, B } = operands;
    const carried = extras ? bench.randomActivation(T * N) : new Float64Array(T * N);
    const y = extras ? bench.activationInout(carried, [T, N]) : bench.activationOutput([T, N]);
    const u = bench.output([T, R]);
    launch('lora_linear', y, u, bench.activation(x, [T, K]), weight, extras ? bench.input(b, [N]) : null, extras ? y : null,
      bench.input(A, [R, K]), bench.input(B, [B.length]), ...scalars(testCase));
    const want = bench.once(() => loraLinear(argumentsOf(testCase, operands)));
    const most = bench.once(() => loraLinear(argumentsOf(testCase, absolutes(operands))));
    const length = 2 * lengthOf(testCase);
    const rounded = bench.once(() => linear({ x: frozenFactor(bench, x, T), W: frozenFactor(bench, operands.W, T), T, N, K }));
    const exact = bench.once(() => linear({ x, W: operands.W, T, N, K }));
    const low = bench.once(() => loraLinear(argumentsOf(testCase, { ...absolutes(operands), W: new Float64Array(N * K), b: new Float64Array(N) })).y);
    const { split, coarse } = adapterRounding(bench, testCase);
    const [ofSums, ofU] = [bound(length, most.y.map((v, i) => v + Math.abs(carried[i] as number))), bound(length, most.u)];
    const ofAdapter = (i: number): number => (2 * split + coarse) * (low[i] as number) + halfRounding(bench) ** 2 * Math.abs(b[i % N] as number) + smallest(bench) + (extras ? roundedBeforeAdding(bench, want.y[i] as number) : 0);
    return [
      { name: 'y', got: y, want: want.y.map((v, i) => v + (rounded[i] as number) - (exact[i] as number) + (carried[i] as number)), within: (i) => ofSums(i) + ofAdapter(i) },
      { name: 'u', got: u, want: want.u, within: (i) => ofU(i) + split * (most.u[i] as number) + smallest(bench) },
    ];
  },
});

parity('lora_linear_grad', {
  cases, frozen: true, halves: 'any rows', inHalves,
  tooBigToEmulate: ({ T, K, parts, dtype }) => T * K * sum(parts) > 300_000 && dtype !== 'bf16',
  run(bench, testCase) {
    const { T, K, parts, ranks, extras } = testCase;
    const [N, R] = [sum(parts), sum(ranks)];
    const { weight, operands } = operandsOf(bench, testCase);
    const { x, A, B } = operands;
    const [dy, into] = [bench.randomActivation(T * N), { dA: bench.random(R * K), dB: bench.random(B.length) }];
    const [dA, dB] = [bench.inout(into.dA, [R, K]), bench.inout(into.dB, [B.length])];
    const dx = extras ? bench.activationOutput([T, K]) : null;
    const u = bench.once(() => loraLinear(argumentsOf(testCase, operands)).u.map(Math.fround));
    launch('lora_linear_grad', dx, dA, dB, bench.activation(dy, [T, N]), bench.activation(x, [T, K]), bench.input(u, [T, R]), weight,
      bench.input(A, [R, K]), bench.input(B, [B.length]), ...scalars(testCase));
    const want = bench.once(() => loraLinearGrad({ ...argumentsOf(testCase, operands), dy, into }));
    const most = bench.once(() => loraLinearGrad({ ...argumentsOf(testCase, absolutes(operands)), dy: absolute(dy), into: { dA: absolute(into.dA), dB: absolute(into.dB) } }));
    const length = 3 * lengthOf(testCase);
    const rounded = bench.once(() => linearGrad({ dy: frozenFactor(bench, dy, Infinity), W: frozenFactor(bench, operands.W, Infinity), T, N, K }));
    const exact = bench.once(() => linearGrad({ dy, W: operands.W, T, N, K }));
    const { split, coarse } = adapterRounding(bench, { ...testCase, extras: false });
    const [ofA, ofB, ofX] = [bound(length, most.dA), bound(length, most.dB), bound(length, most.dx)];
    const outputs = [
      { name: 'dA', got: dA, want: want.dA, within: (i: number) => ofA(i) + 2 * split * (most.dA[i] as number) + T * smallest(bench) },
      { name: 'dB', got: dB, want: want.dB, within: (i: number) => ofB(i) + split * (most.dB[i] as number) + T * smallest(bench) },
    ];
    if (dx === null) return outputs;
    const low = bench.once(() => loraLinearGrad({ ...argumentsOf(testCase, { ...absolutes(operands), W: new Float64Array(N * K) }), dy: absolute(dy), into }).dx);
    // With dropout that term is made, and rounded, before the product is added to it.
    const masked = testCase.dropout > 0 ? halfRounding(bench) : coarse;
    const within = (i: number): number => ofX(i) + (2 * split + masked) * (low[i] as number) + smallest(bench);
    return [...outputs, { name: 'dx', got: dx, want: want.dx.map((v, i) => v + (rounded[i] as number) - (exact[i] as number)), within }];
  },
});
