import type { Numbers } from './numbers.ts';

export interface LinearArgs {
  x: Numbers; // [T, K]
  W: Numbers; // [N, K]
  b?: Numbers | undefined; // [N]
  carry?: Numbers | undefined; // [T, N]: what the result is added to, a residual stream say
  T: number;
  N: number;
  K: number;
}

/** y [T, N] = x Wᵀ + b + carry. */
export function linear({ x, W, b, carry, T, N, K }: LinearArgs): Float64Array {
  const y = new Float64Array(T * N);
  for (let t = 0; t < T; t++) {
    for (let n = 0; n < N; n++) {
      let sum = (b ? b[n]! : 0) + (carry ? carry[t * N + n]! : 0);
      for (let k = 0; k < K; k++) sum += x[t * K + k]! * W[n * K + k]!;
      y[t * N + n] = sum;
    }
  }
  return y;
}

/** dx [T, K] = dy W for dy [T, N]; W and b are frozen. */
export function linearGrad({ dy, W, T, N, K }: Omit<LinearArgs, 'x' | 'b' | 'carry'> & { dy: Numbers }): Float64Array {
  const dx = new Float64Array(T * K);
  for (let t = 0; t < T; t++) {
    for (let n = 0; n < N; n++) {
      for (let k = 0; k < K; k++) dx[t * K + k]! += dy[t * N + n]! * W[n * K + k]!;
    }
  }
  return dx;
}
