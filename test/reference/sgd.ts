import type { Numbers } from './numbers.ts';

export interface SgdArgs {
  p: Float64Array; // parameters, changed in place
  velocity?: Float64Array | undefined; // momentum buffer, likewise; zeros before the first step; none without momentum
  g: Numbers; // gradient
  lr: number;
  momentum: number;
  weightDecay: number;
}

/** One step of torch.optim.SGD (no dampening, no Nesterov): decay is added to the gradient, so momentum carries it too. */
export function sgdInplace({ p, velocity, g, lr, momentum, weightDecay }: SgdArgs): void {
  for (let i = 0; i < p.length; i++) {
    let d = g[i]! + weightDecay * p[i]!;
    if (velocity) {
      d += momentum * velocity[i]!;
      velocity[i] = d;
    }
    p[i]! -= lr * d;
  }
}
