import type { Numbers } from './numbers.ts';
import { rmsNorm, rmsNormGrad } from './rms_norm.ts';

export interface QkNormArgs {
  x: Numbers; // [T, (H + 2G) * D]: q heads, k heads, v heads
  wq: Numbers; // [D]
  wk: Numbers; // [D]
  T: number;
  H: number;
  G: number;
  D: number;
  eps: number;
}

/** RMS norm over each q head (weight wq) and each k head (weight wk); v heads are copied. y [T, (H+2G)*D], r [T, H+G]. */
export function qkNorm({ x, wq, wk, T, H, G, D, eps }: QkNormArgs): { y: Float64Array; r: Float64Array } {
  const y = Float64Array.from(x);
  const r = new Float64Array(T * (H + G));
  for (let t = 0; t < T; t++) {
    for (let h = 0; h < H + G; h++) {
      const start = (t * (H + 2 * G) + h) * D;
      const head = rmsNorm({ x: y.slice(start, start + D), w: h < H ? wq : wk, N: 1, C: D, eps });
      y.set(head.y, start);
      r[t * (H + G) + h] = head.r[0]!;
    }
  }
  return { y, r };
}

/** dx [T, (H+2G)*D] for dy of the same shape; wq and wk are frozen. */
export function qkNormGrad({ dy, x, wq, wk, T, H, G, D, eps }: QkNormArgs & { dy: Numbers }): Float64Array {
  const from = Float64Array.from(x);
  const dx = Float64Array.from(dy);
  for (let t = 0; t < T; t++) {
    for (let h = 0; h < H + G; h++) {
      const start = (t * (H + 2 * G) + h) * D;
      const head = { x: from.slice(start, start + D), dy: dx.slice(start, start + D) };
      dx.set(rmsNormGrad({ ...head, w: h < H ? wq : wk, N: 1, C: D, eps }), start);
    }
  }
  return dx;
}
