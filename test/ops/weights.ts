import type { Weight, WeightOrder } from '../../src/device.ts';
import type { DType } from '../../src/tensor.ts';
import { type Bench, roundTo } from './bench.ts';

/** A frozen weight of several parts: what the oracle reads, all parts one below the other, and what the kernel gets. */
export interface FrozenWeight {
  readonly values: Float64Array; // [N, K]
  readonly weight: Weight;
}

export function frozenWeight(bench: Bench, parts: readonly number[], K: number, dtype: DType, order: WeightOrder): FrozenWeight {
  const stored = parts.map((out) => ({ values: bench.random(out * K, { dtype }), out }));
  return { values: joined(stored.map(({ values }) => values)), weight: bench.weight(stored, K, dtype, order) };
}

function joined(parts: readonly Float64Array[]): Float64Array {
  const all = new Float64Array(sum(parts.map(({ length }) => length)));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

/** Products of so few rows (decoding) are taken in f32 at any precision. */
const fewRows = 32;

/**
 * What a device takes for a factor of a frozen product of T rows: with activations of 16 bits the weights are in these too; bf16 with
 * `medium`; else the numbers themselves.
 */
export function frozenFactor(bench: Bench, values: Float64Array, T: number): Float64Array {
  if (bench.activations !== 'f32') return bench.rounded(values);
  return bench.device.info.matmulPrecision === 'medium' && T > fewRows ? values.map((value) => roundTo(value, 'bf16')) : values;
}

/** What rounding to the activations' dtype costs, relatively, at most; 0 where they are f32. */
export function halfRounding(bench: Bench): number {
  return { f32: 0, f16: 2 ** -11, bf16: 2 ** -8 }[bench.activations];
}

/** What a product that is added to C may be off by beside: cublasLt rounds it to 16 bits before it adds (all of nvjet's kernels did on an H100). */
export function roundedBeforeAdding(bench: Bench, product: number): number {
  return bench.device.kind === 'cuda' ? halfRounding(bench) * Math.abs(product) : 0;
}

/** a [T, K] times b [N, K] transposed, of absolute values: what the errors of a product are measured against. */
export function absoluteProduct(a: Float64Array, b: Float64Array, T: number, N: number, K: number): Float64Array {
  const sums = new Float64Array(T * N);
  for (let t = 0; t < T; t++) {
    for (let n = 0; n < N; n++) {
      let sum = 0;
      for (let k = 0; k < K; k++) sum += Math.abs((a[t * K + k] as number) * (b[n * K + k] as number));
      sums[t * N + n] = sum;
    }
  }
  return sums;
}

export function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
