import { launch } from '../kernel.ts';
import { defineOp } from '../op.ts';
import type { Tensor } from '../tensor.ts';

/** Query heads H and key/value heads G of a joined row: H queries, G keys, G values, of D numbers each. */
export interface Heads {
  readonly heads: number;
  readonly kvHeads: number;
}

export interface AttentionOptions extends Heads {
  /** Keys a query sees, itself included; 0: all before it. */
  readonly window: number;
  /** What q·k is multiplied by, usually 1/sqrt(D). */
  readonly scale: number;
}

/**
 * Causal attention inside each sequence of a packed batch. qkv [T, (H+2G)·D], offsets [S+1] i32 from 0 to T; y [T, H·D].
 * Never more than a block of scores exists. (Dao et al. 2022)
 */
export const attention = defineOp((qkv: Tensor, offsets: Tensor, options: AttentionOptions) => {
  const { heads, kvHeads, window, scale } = options;
  const y = outputOf(qkv, options);
  const lse = qkv.device.empty([qkv.rows, heads]);
  launch('attention', y, lse, qkv, offsets, heads, kvHeads, window, scale);
  return {
    out: y,
    inputs: [qkv],
    saved: [qkv, y, lse, offsets],
    rule: (dy) => {
      const dqkv = qkv.like();
      launch('attention_grad', dqkv, dy, qkv, y, lse, offsets, heads, kvHeads, window, scale);
      return [dqkv];
    },
  };
});

/** Keys and values of one sequence so far, [P, G·D] each. */
export interface KeyValueCache {
  readonly keys: Tensor;
  readonly values: Tensor;
}

/** Attention of T new tokens at positions start … start+T−1 over a cache, which they are written into. No gradient. */
export function attentionCache(qkv: Tensor, cache: KeyValueCache, start: number, options: AttentionOptions): Tensor {
  const y = outputOf(qkv, options);
  launchCache(y, qkv, cache, start, options);
  return y;
}

/** The same of one new token of each of S sequences, qkv [S, (H+2G)·D], each over its own cache, at its own position. */
export function attentionCaches(qkv: Tensor, caches: readonly KeyValueCache[], starts: readonly number[], options: AttentionOptions): Tensor {
  const [only] = caches;
  if (caches.length === 1 && only !== undefined) return attentionCache(qkv, only, starts[0] as number, options);
  const y = outputOf(qkv, options);
  caches.forEach((cache, row) => launchCache(rowOf(y, row), rowOf(qkv, row), cache, starts[row] as number, options));
  return y;
}

function outputOf(qkv: Tensor, { heads, kvHeads }: Heads): Tensor {
  return qkv.like([qkv.rows, (qkv.cols / (heads + 2 * kvHeads)) * heads]);
}

const rowOf = (x: Tensor, row: number): Tensor => x.view([1, x.cols], row * x.cols);

function launchCache(y: Tensor, qkv: Tensor, { keys, values }: KeyValueCache, start: number, { heads, kvHeads, window, scale }: AttentionOptions): void {
  launch('attention_cache', y, keys, values, qkv, heads, kvHeads, start, window, scale);
}
