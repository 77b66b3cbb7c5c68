import type { Numbers } from './numbers.ts';

/** Σ x². */
export function sumSquares(x: Numbers): number {
  let sum = 0;
  for (let i = 0; i < x.length; i++) sum += x[i]! ** 2;
  return sum;
}

/** What global-norm clipping multiplies the gradients by: min(1, clip / (norm + 1e-6)), as torch's `clip_grad_norm_`. */
export function clipCoefficient({ norm, clip }: { norm: number; clip: number }): number {
  return Math.min(1, clip / (norm + 1e-6));
}
