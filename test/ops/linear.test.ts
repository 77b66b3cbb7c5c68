import type { WeightOrder } from '../../src/device.ts';
import { launch } from '../../src/kernel.ts';
import type { DType } from '../../src/tensor.ts';
import { linear, linearGrad } from '../reference/linear.ts';
import { transposed } from './bench.ts';
import { bound, parity } from './parity.ts';
import { absoluteProduct, frozenFactor, frozenWeight, halfRounding, roundedBeforeAdding, sum } from './weights.ts';

interface Case {
  readonly T: number;
  readonly K: number;
  readonly parts: readonly number[];
  readonly dtype: DType;
  readonly order: WeightOrder;
  readonly bias: boolean;
  readonly carry: 'none' | 'given' | 'is y';
}

// [T, K, parts]: nothing, one, around vectors and chunks (48 columns) of few rows; from 33 rows on a GEMM's tiles (14, 6 rows; 32, 16,
// 8 columns) and slabs (384, 1,024).
const sizes: readonly (readonly [number, number, readonly number[]])[] = [
  [0, 8, [8]], [1, 1, [1]], [3, 0, [5]], [7, 0, [5]], [1, 67, [0, 5]], [2, 16, [33]], [3, 31, [7, 1, 20]], [4, 300, [130]],
  [5, 3, [2]], [6, 16, [16]], [7, 17, [15, 17]], [13, 33, [31]], [15, 65, [64, 3, 32]], [29, 97, [40]], [31, 385, [100]], [20, 800, [40, 33]],
  [33, 3, [2]], [34, 16, [16]], [35, 17, [15, 17]], [43, 65, [64, 3, 32]], [57, 97, [40]], [61, 385, [100]], [48, 1100, [40, 33]], [131, 41, [9]], [34, 9, [1050]],
];
const formats: readonly (readonly [DType, WeightOrder])[] = [['f32', 'out_in'], ['f16', 'out_in'], ['bf16', 'out_in'], ['f32', 'in_out'], ['f16', 'in_out'], ['bf16', 'in_out']];
// In 16 bits weights are held as activations are, whatever they were stored in.
const inHalves = ({ T, dtype }: Case): boolean => dtype !== 'f32' && [0, 1, 2, 7, 13, 20, 35, 57, 131].includes(T);
const carries = ['none', 'given', 'is y'] as const;
const cases: readonly Case[] = sizes.flatMap(([T, K, parts], i) =>
  formats.map(([dtype, order], j) => ({ T, K, parts, dtype, order, bias: (i + j) % 2 === 0, carry: carries[(i + j) % 3] ?? 'none' })));

parity('linear', {
  cases, frozen: true, halves: 'any rows', inHalves,
  tooBigToEmulate: ({ T, K, parts, dtype }) => T * K * sum(parts) > 300_000 && dtype !== 'bf16',
  run(bench, { T, K, parts, dtype, order, bias, carry }) {
    const N = sum(parts);
    const { values: W, weight } = frozenWeight(bench, parts, K, dtype, order);
    const [x, b, carried] = [bench.randomActivation(T * K), bench.random(N), bench.randomActivation(T * N)];
    const y = carry === 'is y' ? bench.activationInout(carried, [T, N]) : bench.activationOutput([T, N]);
    const given = carry === 'none' ? null : carry === 'is y' ? y : bench.activation(carried, [T, N]);
    launch('linear', y, bench.activation(x, [T, K]), weight, bias ? bench.input(b, [N]) : null, given);
    const want = bench.once(() => linear({ x: frozenFactor(bench, x, T), W: frozenFactor(bench, W, T), b: bias ? b : undefined, carry: carry === 'none' ? undefined : carried, T, N, K }));
    const magnitude = bench.once(() => absoluteProduct(x, W, T, N, K).map((v, i) => v + Math.abs(b[i % N] as number) + Math.abs(carried[i] as number)));
    const within = bound(K, magnitude);
    // In a border the bias stands as two numbers of 16 bits.
    const ofBias = (i: number): number => (bias ? halfRounding(bench) ** 2 * Math.abs(b[i % N] as number) : 0);
    const ofCarry = (i: number): number => (carry === 'none' ? 0 : roundedBeforeAdding(bench, (want[i] as number) - (carried[i] as number)));
    return [{ name: 'y', got: y, want, within: (i) => within(i) + ofBias(i) + ofCarry(i) }];
  },
});

parity('linear_grad', {
  cases, frozen: true, halves: 'any rows', inHalves,
  tooBigToEmulate: ({ T, K, parts, dtype }) => T * K * sum(parts) > 300_000 && dtype !== 'bf16',
  run(bench, { T, K, parts, dtype, order }) {
    const N = sum(parts);
    const { values: W, weight } = frozenWeight(bench, parts, K, dtype, order);
    const dy = bench.randomActivation(T * N);
    const dx = bench.activationOutput([T, K]);
    launch('linear_grad', dx, bench.activation(dy, [T, N]), weight);
    const magnitude = bench.once(() => absoluteProduct(dy, transposed(W, N, K), T, K, N));
    const want = bench.once(() => linearGrad({ dy: frozenFactor(bench, dy, Infinity), W: frozenFactor(bench, W, Infinity), T, N, K }));
    return [{ name: 'dx', got: dx, want, within: bound(N, magnitude) }];
  },
});
