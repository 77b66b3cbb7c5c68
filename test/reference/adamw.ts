import type { Numbers } from './numbers.ts';

export interface AdamwArgs {
  p: Float64Array; // parameters, changed in place
  m: Float64Array; // first moment, likewise
  v: Float64Array; // second moment, likewise
  g: Numbers; // gradient
  lr: number;
  beta1: number;
  beta2: number;
  eps: number;
  weightDecay: number;
  step: number; // 1 for the first
}

/**
 * One step of AdamW with decoupled decay, in the order of torch.optim.AdamW: p shrinks by lr * weightDecay first;
 * eps is added after the bias correction of the second moment.
 */
export function adamwInplace({ p, m, v, g, lr, beta1, beta2, eps, weightDecay, step }: AdamwArgs): void {
  const correction1 = 1 - beta1 ** step;
  const correction2 = 1 - beta2 ** step;
  for (let i = 0; i < p.length; i++) {
    m[i] = beta1 * m[i]! + (1 - beta1) * g[i]!;
    v[i] = beta2 * v[i]! + (1 - beta2) * g[i]! ** 2;
    const denominator = Math.sqrt(v[i]! / correction2) + eps;
    p[i] = p[i]! * (1 - lr * weightDecay) - (lr * (m[i]! / correction1)) / denominator;
  }
}
