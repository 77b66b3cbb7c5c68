import { launch } from '../../src/kernel.ts';
import type { DType } from '../../src/tensor.ts';
import { roundTo, transposed } from './bench.ts';
import { bound, parity } from './parity.ts';

const dtypes: readonly DType[] = ['f32', 'f16', 'bf16'];
// [N, K, r]: nothing, one, around vectors and tiles, no rank, a real projection's width.
const sizes = [[0, 5, 2], [1, 1, 1], [3, 17, 2], [16, 16, 0], [33, 31, 8], [15, 65, 17], [40, 400, 16], [7, 2048, 4]] as const;
const cases = sizes.flatMap(([N, K, r]) => dtypes.flatMap((dtype) => [0, 1].map((order) => ({ N, K, r, dtype, order }))));

parity('lora_merge', {
  cases,
  run(bench, { N, K, r, dtype, order }) {
    const scale = 0.375;
    const [W, A, B] = [bench.random(N * K, { dtype }), bench.random(r * K), bench.random(N * r, { scale: 0.1 })];
    const stored = (values: Float64Array): Float64Array => (order === 0 ? values : transposed(values, N, K));
    const shape = order === 0 ? [N, K] : [K, N];
    const merged = bench.output(shape, dtype);
    launch('lora_merge', merged, bench.input(stored(W), shape, dtype), bench.input(A, [r, K]), bench.input(B, [N, r]), scale, order);
    const [want, magnitude] = [new Float64Array(N * K), new Float64Array(N * K)];
    for (let n = 0; n < N; n++) {
      for (let k = 0; k < K; k++) {
        let [delta, most] = [0, 0];
        for (let i = 0; i < r; i++) {
          const term = scale * (B[n * r + i] as number) * (A[i * K + k] as number);
          delta += term;
          most += Math.abs(term);
        }
        want[n * K + k] = (W[n * K + k] as number) + delta;
        magnitude[n * K + k] = Math.abs(W[n * K + k] as number) + most;
      }
    }
    return [{ name: 'merged', got: merged, want: stored(want), within: bound(r + 1, stored(magnitude)) }];
  },
});

parity('lora_merge with B = 0 leaves every bit of W', {
  cases: dtypes.flatMap((dtype) => [0, 1].map((order) => ({ dtype, order }))),
  run(bench, { dtype, order }) {
    const values = [0, 1, -1.5, 65504, 2 ** -24, -(2 ** -14), 1e-30, 3.140625].map((v) => roundTo(v, dtype));
    const W = Float64Array.from({ length: 8 * 9 }, (_, i) => values[i % 8] as number);
    const shape = order === 0 ? [8, 9] : [9, 8];
    const merged = bench.output(shape, dtype);
    launch('lora_merge', merged, bench.input(W, shape, dtype), bench.input(bench.random(2 * 9), [2, 9]), bench.input(new Float64Array(16), [8, 2]), 2, order);
    return [{ name: 'merged', got: merged, want: W, within: () => 0 }];
  },
});
