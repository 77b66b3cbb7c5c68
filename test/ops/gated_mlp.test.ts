import { launch } from '../../src/kernel.ts';
import { loraLinear, loraLinearGrad } from '../reference/lora_linear.ts';
import { swiglu, swigluGrad } from '../reference/swiglu.ts';
import type { Bench } from './bench.ts';
import { bound, epsilon, parity } from './parity.ts';
import { frozenFactor, frozenWeight, halfRounding, sum } from './weights.ts';

interface Case {
  readonly T: number;
  readonly K: number; // of x, and of y
  readonly F: number;
  readonly ranks: readonly [gate: number, up: number];
  readonly rank: number; // of down
  readonly dropout: number;
  readonly extras: boolean; // bias and a carry that is y; dx is asked for, and dy takes the place of gate | up
}

// Whole and broken pieces of eight columns, tiles of 64 columns, 64 and 128 rows; more rows than a block's (512); parts without adapter; more ranks than are made on the way.
const sizes: readonly (readonly [number, number, number, readonly [number, number], number])[] = [
  [0, 8, 8, [2, 2], 2], [1, 5, 8, [1, 1], 1], [3, 7, 9, [2, 3], 4], [5, 16, 40, [8, 0], 8], [66, 9, 72, [0, 16], 16], [130, 12, 64, [16, 16], 20],
  [70, 10, 136, [20, 32], 33], [9, 12, 264, [4, 40], 64], [20, 8, 1032, [8, 8], 8], [520, 4, 16, [3, 2], 2],
];
const cases: readonly Case[] = sizes.flatMap(([T, K, F, ranks, rank], i) => [0, 0.3].map((dropout, j) => ({ T, K, F, ranks, rank, dropout, extras: (i + j) % 2 === 0 })));

const seed = [77, 1] as const;
const step = 9;

const absolute = (values: Float64Array): Float64Array => values.map(Math.abs);

/** The scalars of an adapter's contract, in its order. */
function scalars(ranks: readonly number[], scales: readonly number[], dropout: number): number[] {
  return [...[0, 1, 2].map((i) => ranks[i] ?? 0), ...[0, 1, 2].map((i) => scales[i] ?? 0), 5, 6, 7, dropout, ...seed, step];
}

/** What the oracle is told of it. */
function partsOf(outs: readonly number[], ranks: readonly number[], scales: readonly number[], dropout: number) {
  return {
    parts: outs.map((N, i) => ({ N, r: ranks[i] as number, s: scales[i] as number, layer: 5 + i })),
    dropout: dropout > 0 ? { p: Math.fround(dropout), seed, step } : undefined,
  };
}

/** How far, relatively, what lies between the two ops may be from the oracle's: its arithmetic, and one more rounding to 16 bits. */
const between = (bench: Bench): number => 32 * epsilon + 4 * halfRounding(bench);

// See lora_linear.test.ts: with few ranks the adapter's factors stand in 16 bits twice, with more once.
const ofAdapter = (bench: Bench): number => 3 * halfRounding(bench);
const smallest = (bench: Bench): number => (bench.activations === 'f16' ? 2 ** -18 : 0);

parity('swiglu_then_lora_linear', {
  cases, halves: 'any rows',
  run(bench, { T, K: N, F, rank, dropout, extras }) {
    const scales = [0.5];
    const { values: W, weight } = frozenWeight(bench, [N], F, 'bf16', 'out_in');
    const [x, b, carried] = [bench.randomActivation(T * 2 * F), bench.random(N), bench.randomActivation(T * N)];
    const [A, B] = [bench.random(rank * F), bench.random(N * rank)];
    const y = extras ? bench.activationInout(carried, [T, N]) : bench.activationOutput([T, N]);
    const [u, h] = [bench.output([T, rank]), bench.activationOutput([T, F])];
    launch('swiglu_then_lora_linear', y, u, h, bench.activation(x, [T, 2 * F]), weight, extras ? bench.input(b, [N]) : null, extras ? y : null,
      bench.input(A, [rank, F]), bench.input(B, [N * rank]), ...scalars([rank], scales, dropout));
    const made = bench.once(() => swiglu({ x, T, F }));
    const given = { W: frozenFactor(bench, W, T), b: extras ? b : undefined, carry: extras ? carried : undefined, A, B, T, K: F, ...partsOf([N], [rank], scales, dropout) };
    const want = bench.once(() => loraLinear({ ...given, x: bench.rounded(made) }));
    const most = bench.once(() => loraLinear({ ...given, x: absolute(made), W: absolute(W), b: extras ? absolute(b) : undefined, carry: extras ? absolute(carried) : undefined, A: absolute(A), B: absolute(B) }));
    const [ofY, ofU, ofH] = [bound(2 * (F + rank), most.y), bound(2 * (F + rank), most.u), bound(1, made)];
    const off = between(bench) + ofAdapter(bench);
    return [
      { name: 'h', got: h, want: made, within: (i) => ofH(i) + 1e-30 },
      { name: 'u', got: u, want: want.u, within: (i) => ofU(i) + between(bench) * (most.u[i] as number) + smallest(bench) },
      { name: 'y', got: y, want: want.y, within: (i) => ofY(i) + off * (most.y[i] as number) + smallest(bench) },
    ];
  },
});

parity('swiglu_grad_then_lora_linear_grad', {
  cases, halves: 'any rows',
  run(bench, { T, K, F, ranks, dropout, extras }) {
    const [N, R, scales] = [2 * F, sum(ranks), [0.5, 1.25]];
    const { values: W, weight } = frozenWeight(bench, [F, F], K, 'bf16', 'out_in');
    const [joined, dh, x] = [bench.randomActivation(T * N), bench.randomActivation(T * F), bench.randomActivation(T * K)];
    const [A, B, u] = [bench.random(R * K), bench.random(F * R), bench.random(T * R)];
    const into = { dA: bench.random(R * K), dB: bench.random(F * R) };
    const y = extras ? bench.activationInout(joined, [T, N]) : bench.activation(joined, [T, N]);
    const dy = extras ? y : bench.activationOutput([T, N]);
    const [dx, dA, dB] = [extras ? bench.activationOutput([T, K]) : null, bench.inout(into.dA, [R, K]), bench.inout(into.dB, [F * R])];
    launch('swiglu_grad_then_lora_linear_grad', dx, dA, dB, dy, bench.activation(dh, [T, F]), y, bench.activation(x, [T, K]), bench.input(u, [T, R]), weight,
      bench.input(A, [R, K]), bench.input(B, [F * R]), ...scalars(ranks, scales, dropout));
    const made = bench.once(() => swigluGrad({ dy: dh, x: joined, T, F }));
    const given = { W: frozenFactor(bench, W, Infinity), A, B, T, K, ...partsOf([F, F], ranks, scales, dropout) };
    // The oracle makes u itself: dB is taken from the given one.
    const want = bench.once(() => withU(loraLinearGrad({ ...given, x, dy: bench.rounded(made), into }), { dy: bench.rounded(made), u, into, T, F, ranks }));
    const most = bench.once(() => withU(
      loraLinearGrad({ ...given, x: absolute(x), W: absolute(W), A: absolute(A), B: absolute(B), dy: absolute(made), into: { dA: absolute(into.dA), dB: absolute(into.dB) } }),
      { dy: absolute(made), u: absolute(u), into: { dB: absolute(into.dB) }, T, F, ranks }));
    const length = 3 * (Math.max(T, N, K) + R);
    // Near a gate's zero dgate and dup are differences of what is larger: relative to what they are made of.
    const ofDy = bound(1, bench.once(() => gradientMagnitudes(dh, joined, T, F)));
    const off = between(bench) + ofAdapter(bench);
    const outputs = [
      { name: 'dy', got: dy, want: made, within: ofDy },
      { name: 'dA', got: dA, want: want.dA, within: (i: number) => bound(length, most.dA)(i) + off * (most.dA[i] as number) + T * smallest(bench) },
      { name: 'dB', got: dB, want: want.dB, within: (i: number) => bound(length, most.dB)(i) + off * (most.dB[i] as number) + T * smallest(bench) },
    ];
    return dx === null ? outputs : [...outputs, { name: 'dx', got: dx, want: want.dx, within: (i: number) => bound(length, most.dx)(i) + off * (most.dx[i] as number) + smallest(bench) }];
  },
});

interface Factors {
  readonly dy: Float64Array; // [T, 2F]
  readonly u: Float64Array; // [T, R]
  readonly into: { readonly dB: Float64Array };
  readonly T: number;
  readonly F: number;
  readonly ranks: readonly number[];
}

/** dB of each part is dyᵀ u, added to what was there. */
function withU<G extends { dB: Float64Array }>(grads: G, { dy, u, into, T, F, ranks }: Factors): G {
  const R = sum(ranks);
  const dB = Float64Array.from(into.dB);
  let [rank0, at] = [0, 0];
  ranks.forEach((rank, part) => {
    for (let n = 0; n < F; n++) {
      for (let r = 0; r < rank; r++, at++) {
        for (let t = 0; t < T; t++) dB[at] = (dB[at] as number) + (dy[t * 2 * F + part * F + n] as number) * (u[t * R + rank0 + r] as number);
      }
    }
    rank0 += rank;
  });
  return { ...grads, dB };
}

function gradientMagnitudes(dh: Float64Array, joined: Float64Array, T: number, F: number): Float64Array {
  const result = new Float64Array(T * 2 * F);
  for (let t = 0; t < T; t++) {
    for (let f = 0; f < F; f++) {
      const [gate, up] = [joined[t * 2 * F + f] as number, joined[t * 2 * F + F + f] as number];
      const pull = Math.abs(dh[t * F + f] as number) / (1 + Math.exp(-gate));
      result[t * 2 * F + f] = pull * Math.abs(up) * (1 + Math.abs(gate));
      result[t * 2 * F + F + f] = pull * Math.abs(gate);
    }
  }
  return result;
}
