import type { Numbers } from './numbers.ts';

export interface SwigluArgs {
  x: Numbers; // [T, 2F]: gate | up
  T: number;
  F: number;
}

/** y [T, F] = silu(gate) * up, silu(g) = g / (1 + exp(-g)). */
export function swiglu({ x, T, F }: SwigluArgs): Float64Array {
  const y = new Float64Array(T * F);
  for (let t = 0; t < T; t++) {
    for (let f = 0; f < F; f++) {
      const gate = x[t * 2 * F + f]!;
      const up = x[t * 2 * F + F + f]!;
      y[t * F + f] = gate * sigmoid(gate) * up;
    }
  }
  return y;
}

/** dx [T, 2F] for dy [T, F]; with σ = sigmoid(gate): dgate = dy up σ (1 + gate (1 - σ)), dup = dy gate σ. */
export function swigluGrad({ dy, x, T, F }: SwigluArgs & { dy: Numbers }): Float64Array {
  const dx = new Float64Array(T * 2 * F);
  for (let t = 0; t < T; t++) {
    for (let f = 0; f < F; f++) {
      const gate = x[t * 2 * F + f]!;
      const up = x[t * 2 * F + F + f]!;
      const σ = sigmoid(gate);
      dx[t * 2 * F + f] = dy[t * F + f]! * up * σ * (1 + gate * (1 - σ));
      dx[t * 2 * F + F + f] = dy[t * F + f]! * gate * σ;
    }
  }
  return dx;
}

function sigmoid(z: number): number {
  return 1 / (1 + Math.exp(-z));
}
