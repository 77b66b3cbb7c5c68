import type { Numbers } from './numbers.ts';

export interface RmsNormArgs {
  x: Numbers; // [N, C]
  w: Numbers; // [C]
  N: number;
  C: number;
  eps: number;
}

/** y = w * x * r,  r = 1 / sqrt(mean(x^2) + eps), one row at a time. Returns y [N, C] and r [N]. */
export function rmsNorm({ x, w, N, C, eps }: RmsNormArgs): { y: Float64Array; r: Float64Array } {
  const y = new Float64Array(N * C);
  const r = new Float64Array(N);
  for (let n = 0; n < N; n++) {
    let squares = 0;
    for (let c = 0; c < C; c++) squares += x[n * C + c]! ** 2;
    r[n] = 1 / Math.sqrt(squares / C + eps);
    for (let c = 0; c < C; c++) y[n * C + c] = w[c]! * x[n * C + c]! * r[n]!;
  }
  return { y, r };
}

/**
 * dx [N, C] for dy [N, C]; w is frozen.
 * dr/dx_k = -r^3 x_k / C, so dx_k = r w_k dy_k - (r^3 x_k / C) * sum_j(dy_j w_j x_j).
 */
export function rmsNormGrad({ dy, x, w, N, C, eps }: RmsNormArgs & { dy: Numbers }): Float64Array {
  const { r } = rmsNorm({ x, w, N, C, eps });
  const dx = new Float64Array(N * C);
  for (let n = 0; n < N; n++) {
    let dot = 0;
    for (let c = 0; c < C; c++) dot += dy[n * C + c]! * w[c]! * x[n * C + c]!;
    for (let c = 0; c < C; c++) {
      dx[n * C + c] = r[n]! * w[c]! * dy[n * C + c]! - (r[n]! ** 3 * x[n * C + c]! * dot) / C;
    }
  }
  return dx;
}
