import type { AttentionArgs } from '../reference/attention.ts';
import type { Numbers } from '../reference/numbers.ts';
import type { Bench } from './bench.ts';
import { bound } from './parity.ts';

/** What was added to make each output, signs aside, with the errors that exp carries over from the scores. */
export interface AttentionMagnitudes {
  readonly y: Float64Array; // [T, H*D]
  readonly lse: Float64Array; // [T, H]
  readonly dqkv: Float64Array; // [T, (H+2G)*D]; zeros without dy
}

/**
 * A score that is off by e makes its probability p e off. Scores are sums of |q k| scale, so with S the largest such sum of a row:
 * |y| grows to (1 + 2 S) sum p |v|, and ds to p (1 + 2 S) scale (|dy| |v| + |dy| |y|). Of the queries from `begin` on.
 */
export function attentionMagnitudes(args: AttentionArgs & { dy?: Numbers }, result: { y: Numbers; lse: Numbers }, begin = 0): AttentionMagnitudes {
  const { T, H, G, D } = args;
  const sizes = { y: new Float64Array(T * H * D), lse: new Float64Array(T * H), dqkv: new Float64Array(T * (H + 2 * G) * D) };
  for (let t = begin; t < T; t++) for (let h = 0; h < H; h++) addRow(args, result, t, h, sizes);
  return sizes;
}

/**
 * Magnitudes to bounds. With 16-bit activations tensor cores take probabilities and their gradients rounded to 16 bits, and delta is made
 * from a y so rounded: two more roundings, of 16 bits. f16 rounds what is below 2^-14 absolutely; the magnitudes are far larger.
 */
export function within(bench: Bench, length: number, sizes: Float64Array): (i: number) => number {
  const inF32 = bound(length, sizes);
  const unit = { f32: 0, f16: 2 ** -11, bf16: 2 ** -8 }[bench.activations];
  return (i) => inF32(i) + 2 * unit * (sizes[i] as number);
}

function addRow(args: AttentionArgs & { dy?: Numbers }, result: { y: Numbers; lse: Numbers }, t: number, h: number, sizes: AttentionMagnitudes): void {
  const { qkv, dy, H, G, D, scale } = args;
  const [width, g] = [(H + 2 * G) * D, Math.floor(h / (H / G))];
  const row = (t * H + h) * D;
  const q = t * width + h * D;
  const key = (j: number): number => j * width + (H + g) * D;
  const value = (j: number): number => j * width + (H + G + g) * D;
  const lse = result.lse[t * H + h] as number;
  const first = firstKey(args, t);
  let most = Math.abs(lse);
  for (let j = first; j <= t; j++) most = Math.max(most, Math.abs(scale) * dotOf(qkv, q, qkv, key(j), D, Math.abs));
  const growth = 1 + 2 * most;
  sizes.lse[t * H + h] = 1 + most;
  const slope = dy === undefined ? 0 : dotOf(dy, row, result.y, row, D, Math.abs);
  for (let j = first; j <= t; j++) {
    const p = growth * Math.exp(scale * dotOf(qkv, q, qkv, key(j), D, (x) => x) - lse);
    addScaled(sizes.y, row, p, qkv, value(j), D);
    if (dy === undefined) continue;
    const ds = p * Math.abs(scale) * (slope + dotOf(dy, row, qkv, value(j), D, Math.abs));
    addScaled(sizes.dqkv, q, ds, qkv, key(j), D);
    addScaled(sizes.dqkv, key(j), ds, qkv, q, D);
    addScaled(sizes.dqkv, value(j), p, dy, row, D);
  }
}

function firstKey({ offsets, window }: AttentionArgs, t: number): number {
  const begin = Array.from(offsets).filter((offset) => offset <= t).at(-1) ?? 0;
  return window > 0 ? Math.max(begin, t - window + 1) : begin;
}

function dotOf(a: Numbers, at: number, b: Numbers, bt: number, size: number, of: (x: number) => number): number {
  let sum = 0;
  for (let d = 0; d < size; d++) sum += of((a[at + d] as number) * (b[bt + d] as number));
  return sum;
}

function addScaled(to: Float64Array, at: number, factor: number, from: Numbers, ft: number, size: number): void {
  for (let d = 0; d < size; d++) to[at + d] = (to[at + d] as number) + factor * Math.abs(from[ft + d] as number);
}
