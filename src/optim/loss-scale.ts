import type { Device } from '../device.ts';

/**
 * Gradients of f16 activations that are too small for f16 vanish, so losses are multiplied before they go back and the optimizer divides
 * again. A power of two: both are exact. (Micikevicius et al. 2018)
 */
export interface LossScale {
  readonly scale: number;
  /** Steps since it changed. */
  readonly goodSteps: number;
}

/** After so many steps without an overflow the scale is tried twice as large. */
const patience = 2000;

/** What a run begins with: 2^16 for f16 activations; null: others need none. */
export function firstLossScale(device: Device): LossScale | null {
  return device.info.activations === 'f16' ? { scale: 2 ** 16, goodSteps: 0 } : null;
}

/** torch.amp.GradScaler's rule: half of it after a gradient that was not finite, twice of it after 2,000 steps that were good. */
export function nextLossScale({ scale, goodSteps }: LossScale, finite: boolean): LossScale {
  if (!finite) return { scale: scale / 2, goodSteps: 0 };
  return goodSteps + 1 === patience ? { scale: scale * 2, goodSteps: 0 } : { scale, goodSteps: goodSteps + 1 };
}
