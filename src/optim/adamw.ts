import { throwFaults } from '../error.ts';
import type { ParameterArena } from '../lora/arena.ts';
import { fillInplace } from '../ops/elementwise.ts';
import { adamwInplace } from '../ops/optimizer.ts';
import { keep } from '../scope.ts';
import type { Tensor } from '../tensor.ts';
import { firstLossScale, type LossScale } from './loss-scale.ts';
import { arenaFaults, atLeastZero, belowOne, groupViews, queueGate, type GroupViews, type Optimizer, type StepOptions } from './optimizer.ts';

/** Rates and decays; defaults are PyTorch's. */
export interface AdamWOptions {
  readonly lr: number;
  /** Decay of the two moments; [0.9, 0.999]. */
  readonly betas?: readonly [number, number];
  /** 1e-8 */
  readonly eps?: number;
  /** Decoupled: the parameters shrink by lr · weightDecay each step; 0.01, as in torch.optim.AdamW. */
  readonly weightDecay?: number;
  /** LoRA+: the rate of B is this times the rate of A; 1. */
  readonly loraPlusRatio?: number;
}

/**
 * torch.optim.AdamW over an arena, its moments in f32 on the device. (Loshchilov & Hutter 2019)
 *
 * @throws LowrankError ERR_ARGUMENT with every setting that is out of range; ERR_MEMORY
 * @example
 * ```ts
 * using optimizer = new AdamW(adapter.parameters(), { lr: 2e-4, loraPlusRatio: 16 });
 * const { loss } = await trainStep(model, optimizer, batch, { clip: 1 });
 * ```
 */
export class AdamW implements Optimizer {
  readonly arena: ParameterArena;
  readonly sumSquares: Tensor;
  lr: number;
  steps = 0;
  lossScale: LossScale | null;
  readonly betas: readonly [number, number];
  readonly eps: number;
  readonly weightDecay: number;
  readonly loraPlusRatio: number;
  readonly #moments: readonly [Tensor, Tensor];
  readonly #groups: readonly GroupViews[];

  constructor(arena: ParameterArena, { lr, betas = [0.9, 0.999], eps = 1e-8, weightDecay = 0.01, loraPlusRatio = 1 }: AdamWOptions) {
    const ranges = [...atLeastZero({ lr, eps, weightDecay, loraPlusRatio }), ...belowOne({ 'betas[0]': betas[0], 'betas[1]': betas[1] })];
    throwFaults('ERR_ARGUMENT', 'AdamW', [...arenaFaults(arena), ...ranges]);
    this.arena = arena;
    this.lr = lr;
    this.lossScale = firstLossScale(arena.device);
    this.betas = [...betas];
    this.eps = eps;
    this.weightDecay = weightDecay;
    this.loraPlusRatio = loraPlusRatio;
    this.sumSquares = keep(arena.device.empty([1]));
    this.#moments = [keep(arena.parameters.like()), keep(arena.parameters.like())];
    for (const moment of this.#moments) fillInplace(moment, 0);
    this.#groups = groupViews(arena, loraPlusRatio, this.#moments);
  }
  step(options: StepOptions, lr = this.lr): void {
    throwFaults('ERR_ARGUMENT', 'AdamW', atLeastZero({ lr }));
    const gate = queueGate(this, options);
    const { eps, weightDecay } = this;
    const step = this.steps + 1;
    const [beta1, beta2] = this.betas;
    for (const { ratio, parameters, gradients, state } of this.#groups) {
      adamwInplace(parameters, state[0] as Tensor, state[1] as Tensor, gradients, gate, { lr: lr * ratio, beta1, beta2, eps, weightDecay, step });
    }
    this.steps = step;
  }
  stateTensors(): { m: Tensor; v: Tensor } {
    return { m: this.#moments[0], v: this.#moments[1] };
  }
  /** Releases its moments; parameters and gradients stay. */
  dispose(): void {
    this.sumSquares.dispose();
    for (const { parameters, gradients, state } of this.#groups) [parameters, gradients, ...state].forEach((view) => view.dispose());
    for (const moment of this.#moments) moment.dispose();
  }
  /** The end of a `using` block. */
  [Symbol.dispose](): void {
    this.dispose();
  }
}
