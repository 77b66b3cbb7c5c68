import { attention } from './attention.ts';
import type { Numbers } from './numbers.ts';

export interface AttentionCacheArgs {
  qkv: Numbers; // [T, (H + 2G) * D]: the new tokens
  kCache: Float64Array; // [capacity, G * D]; rows start .. start + T - 1 are written
  vCache: Float64Array; // [capacity, G * D]; likewise
  start: number; // tokens that the cache holds before this call
  T: number;
  H: number;
  G: number;
  D: number;
  window: number;
  scale: number;
}

/** Attention of T new tokens over a sequence whose first `start` keys and values are cached. Returns y [T, H*D], lse [T, H]. */
export function attentionCache(args: AttentionCacheArgs): { y: Float64Array; lse: Float64Array } {
  const { qkv, kCache, vCache, start, T, H, G, D, window, scale } = args;
  const width = (H + 2 * G) * D;
  const row = G * D;
  for (let t = 0; t < T; t++) {
    for (let i = 0; i < row; i++) {
      kCache[(start + t) * row + i] = qkv[t * width + H * D + i]!;
      vCache[(start + t) * row + i] = qkv[t * width + (H + G) * D + i]!;
    }
  }
  // The whole sequence over again: old queries are not known and not needed, so they are left zero and their rows dropped.
  const length = start + T;
  const all = new Float64Array(length * width);
  for (let t = 0; t < length; t++) {
    for (let i = 0; i < H * D && t >= start; i++) all[t * width + i] = qkv[(t - start) * width + i]!;
    all.set(kCache.subarray(t * row, (t + 1) * row), t * width + H * D);
    all.set(vCache.subarray(t * row, (t + 1) * row), t * width + (H + G) * D);
  }
  const { y, lse } = attention({ qkv: all, offsets: [0, length], T: length, H, G, D, window, scale });
  return { y: y.slice(start * H * D), lse: lse.slice(start * H) };
}
