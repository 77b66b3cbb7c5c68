import type { Numbers } from './numbers.ts';

export interface LayerNormArgs {
  x: Numbers; // [N, C]
  w: Numbers; // [C]
  b: Numbers; // [C]
  N: number;
  C: number;
  eps: number;
}

/** y = w * (x - mu) * r + b, r = 1 / sqrt(mean((x - mu)^2) + eps). Returns y [N, C], mu [N] and r [N]. */
export function layerNorm({ x, w, b, N, C, eps }: LayerNormArgs): { y: Float64Array; mu: Float64Array; r: Float64Array } {
  const y = new Float64Array(N * C);
  const mu = new Float64Array(N);
  const r = new Float64Array(N);
  for (let n = 0; n < N; n++) {
    let sum = 0;
    for (let c = 0; c < C; c++) sum += x[n * C + c]!;
    mu[n] = sum / C;
    let squares = 0;
    for (let c = 0; c < C; c++) squares += (x[n * C + c]! - mu[n]!) ** 2;
    r[n] = 1 / Math.sqrt(squares / C + eps);
    for (let c = 0; c < C; c++) y[n * C + c] = w[c]! * (x[n * C + c]! - mu[n]!) * r[n]! + b[c]!;
  }
  return { y, mu, r };
}

/** dx [N, C] for dy [N, C]; w and b are frozen. With z = (x - mu) r and g = w dy: dx = r (g - mean(g) - z mean(g z)). */
export function layerNormGrad({ dy, ...args }: LayerNormArgs & { dy: Numbers }): Float64Array {
  const { x, w, N, C } = args;
  const { mu, r } = layerNorm(args);
  const dx = new Float64Array(N * C);
  for (let n = 0; n < N; n++) {
    const z = (c: number) => (x[n * C + c]! - mu[n]!) * r[n]!;
    const g = (c: number) => w[c]! * dy[n * C + c]!;
    let meanG = 0;
    let meanGz = 0;
    for (let c = 0; c < C; c++) {
      meanG += g(c) / C;
      meanGz += (g(c) * z(c)) / C;
    }
    for (let c = 0; c < C; c++) dx[n * C + c] = r[n]! * (g(c) - meanG - z(c) * meanGz);
  }
  return dx;
}
