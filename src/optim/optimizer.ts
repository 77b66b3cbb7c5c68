import { throwFaults } from '../error.ts';
import type { ParameterArena, ParameterGroup } from '../lora/arena.ts';
import { sumSquares, type Gate } from '../ops/optimizer.ts';
import { keep } from '../scope.ts';
import type { Tensor } from '../tensor.ts';
import type { LossScale } from './loss-scale.ts';

/** What one step is made under. */
export interface StepOptions {
  /** `[micro-batches]`: the step changes nothing unless all of these are finite. */
  readonly losses: Tensor;
  /** Greatest norm of the whole gradient; 0 (the default): not clipped. */
  readonly clip?: number;
  /** What the losses were multiplied by before they went back; the step takes it out again. 1 */
  readonly lossScale?: number;
  /** `[1]`: where Σ g² goes, instead of the optimizer's own tensor. With a loss scale it is of the gradient as it lies there, scaled. */
  readonly sumSquares?: Tensor;
}

/** Changes an arena's parameters by its gradients. Steps are only queued: whether one was made is known from its losses and Σ g². */
export interface Optimizer {
  readonly arena: ParameterArena;
  /** The rate of A; B's is this times the LoRA+ ratio. */
  lr: number;
  /**
   * Steps made so far. `step` counts at once; whoever learns that the device made none (a loss or the gradient was not finite)
   * takes it back with `steps -= 1`, as `trainStep` does.
   */
  steps: number;
  /** By how much losses are multiplied before they go back, with f16 activations; null: not at all. `trainStep` heeds it and moves it on. */
  lossScale: LossScale | null;
  /** `[1]`: Σ g² of the last step, before clipping. */
  readonly sumSquares: Tensor;
  /** Queues Σ g² and the update; `lr` is for this step only. */
  step(options: StepOptions, lr?: number): void;
  /** What has to be saved beside `steps` to go on later, by name. The tensors stay the optimizer's. */
  stateTensors(): Readonly<Record<string, Tensor>>;
  /** Releases what it keeps between steps; parameters and gradients stay. */
  dispose(): void;
}

/** A group of the arena as an optimizer updates it in one launch. */
export interface GroupViews {
  /** What the rate is multiplied by. */
  readonly ratio: number;
  readonly parameters: Tensor;
  readonly gradients: Tensor;
  readonly state: readonly Tensor[];
}

/**
 * Cuts arena and state into one run of numbers per rate: B apart from A only where LoRA+ gives it a rate of its own.
 * (Hayou et al. 2024)
 */
export function groupViews(arena: ParameterArena, loraPlusRatio: number, state: readonly Tensor[]): GroupViews[] {
  const whole = { begin: 0, count: arena.size };
  const cuts: readonly Pick<ParameterGroup, 'begin' | 'count'>[] = loraPlusRatio === 1 ? [whole] : arena.groups;
  return cuts.map(({ begin, count }, i) => {
    const cut = (tensor: Tensor): Tensor => keep(tensor.view([count], begin));
    return { ratio: i === 0 ? 1 : loraPlusRatio, parameters: cut(arena.parameters), gradients: cut(arena.gradients), state: state.map(cut) };
  });
}

/** Queues Σ g² of the whole arena and returns what the update asks first. */
export function queueGate(optimizer: Optimizer, { losses, clip = 0, lossScale = 1, sumSquares: sum = optimizer.sumSquares }: StepOptions): Gate {
  throwFaults('ERR_ARGUMENT', 'optimizer step', [...atLeastZero({ clip }), ...(lossScale > 0 && Number.isFinite(lossScale) ? [] : [`lossScale must be a number above 0 (it is ${lossScale})`])]);
  sumSquares(sum, optimizer.arena.gradients);
  return { sumSquares: sum, losses, clip, lossScale };
}

/** What an arena and the settings that all optimizers share are refused for. */
export function arenaFaults(arena: ParameterArena): string[] {
  return arena.trainable ? [] : ['the adapter must be trainable (it was loaded without gradients)'];
}

export function atLeastZero(settings: Readonly<Record<string, number>>): string[] {
  return Object.entries(settings)
    .filter(([, value]) => !(Number.isFinite(value) && value >= 0))
    .map(([name, value]) => `${name} must be a number of at least 0 (it is ${value})`);
}

export function belowOne(settings: Readonly<Record<string, number>>): string[] {
  return Object.entries(settings)
    .filter(([, value]) => !(value >= 0 && value < 1))
    .map(([name, value]) => `${name} must be at least 0 and below 1 (it is ${value})`);
}
