import { throwFaults } from '../error.ts';
import type { ParameterArena } from '../lora/arena.ts';
import { fillInplace } from '../ops/elementwise.ts';
import { sgdInplace } from '../ops/optimizer.ts';
import { keep } from '../scope.ts';
import type { Tensor } from '../tensor.ts';
import { firstLossScale, type LossScale } from './loss-scale.ts';
import { arenaFaults, atLeastZero, belowOne, groupViews, queueGate, type GroupViews, type Optimizer, type StepOptions } from './optimizer.ts';

/** Rate, momentum and decay; defaults are PyTorch's. */
export interface SgdOptions {
  readonly lr: number;
  /** 0: none, and no state. */
  readonly momentum?: number;
  /** Added to the gradient, times the parameter; 0. */
  readonly weightDecay?: number;
  /** LoRA+: the rate of B is this times the rate of A; 1. */
  readonly loraPlusRatio?: number;
}

/**
 * torch.optim.SGD over an arena.
 *
 * @throws LowrankError ERR_ARGUMENT with every setting that is out of range; ERR_MEMORY
 * @example
 * ```ts
 * using optimizer = new Sgd(adapter.parameters(), { lr: 0.1, momentum: 0.9 });
 * ```
 */
export class Sgd implements Optimizer {
  readonly arena: ParameterArena;
  readonly sumSquares: Tensor;
  lr: number;
  steps = 0;
  lossScale: LossScale | null;
  readonly momentum: number;
  readonly weightDecay: number;
  readonly loraPlusRatio: number;
  readonly #buffer: Tensor | null;
  readonly #groups: readonly GroupViews[];

  constructor(arena: ParameterArena, { lr, momentum = 0, weightDecay = 0, loraPlusRatio = 1 }: SgdOptions) {
    const faults = [...arenaFaults(arena), ...atLeastZero({ lr, weightDecay, loraPlusRatio }), ...belowOne({ momentum })];
    throwFaults('ERR_ARGUMENT', 'Sgd', faults);
    this.arena = arena;
    this.lr = lr;
    this.lossScale = firstLossScale(arena.device);
    this.momentum = momentum;
    this.weightDecay = weightDecay;
    this.loraPlusRatio = loraPlusRatio;
    this.sumSquares = keep(arena.device.empty([1]));
    this.#buffer = momentum === 0 ? null : keep(arena.parameters.like());
    if (this.#buffer !== null) fillInplace(this.#buffer, 0);
    this.#groups = groupViews(arena, loraPlusRatio, this.#buffer === null ? [] : [this.#buffer]);
  }
  step(options: StepOptions, lr = this.lr): void {
    throwFaults('ERR_ARGUMENT', 'Sgd', atLeastZero({ lr }));
    const gate = queueGate(this, options);
    const { momentum, weightDecay } = this;
    const step = this.steps + 1;
    for (const { ratio, parameters, gradients, state } of this.#groups) {
      sgdInplace(parameters, state[0] ?? null, gradients, gate, { lr: lr * ratio, momentum, weightDecay, step });
    }
    this.steps = step;
  }
  stateTensors(): Record<string, Tensor> {
    return this.#buffer === null ? {} : { momentum: this.#buffer };
  }
  /** Releases its momentum; parameters and gradients stay. */
  dispose(): void {
    this.sumSquares.dispose();
    for (const { parameters, gradients, state } of this.#groups) [parameters, gradients, ...state].forEach((view) => view.dispose());
    this.#buffer?.dispose();
  }
  /** The end of a `using` block. */
  [Symbol.dispose](): void {
    this.dispose();
  }
}
