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

/**
 * What an optimizer step multiplies the gradient by: null where the norm or a loss is not finite, and then the step changes
 * nothing; 1 with clip = 0; else the clip coefficient.
 */
export function gate({ sumSquares, losses, clip }: { sumSquares: number; losses: Numbers; clip: number }): number | null {
  if (!Number.isFinite(sumSquares) || !Array.from(losses).every(Number.isFinite)) return null;
  return clip === 0 ? 1 : clipCoefficient({ norm: Math.sqrt(sumSquares), clip });
}
