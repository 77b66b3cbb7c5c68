import type { Device } from '../device.ts';
import { LowrankError } from '../error.ts';
import { fillInplace } from '../ops/elementwise.ts';
import { keep } from '../scope.ts';
import type { Tensor } from '../tensor.ts';

/** A run of numbers in the arena that share a rate: all A's, or all B's. */
export interface ParameterGroup {
  readonly name: 'A' | 'B';
  readonly begin: number;
  readonly count: number;
}

/** Numbers of an arena's groups, and whether it has gradients. */
export interface ArenaSize {
  readonly countA: number;
  readonly countB: number;
  readonly trainable: boolean;
}

/**
 * All numbers of an adapter, flat: first every A, then every B. A and B are views; zeroing is one fill, the norm one
 * reduction, an optimizer step one launch a group.
 */
export class ParameterArena {
  readonly device: Device;
  readonly trainable: boolean;
  readonly parameters: Tensor; // [n] f32
  readonly groups: readonly ParameterGroup[];
  readonly #gradients: Tensor | null;

  constructor(device: Device, { countA, countB, trainable }: ArenaSize) {
    this.device = device;
    this.trainable = trainable;
    this.parameters = keep(device.empty([countA + countB]));
    this.#gradients = trainable ? keep(this.parameters.like()) : null;
    this.groups = [
      { name: 'A', begin: 0, count: countA },
      { name: 'B', begin: countA, count: countB },
    ];
    fillInplace(this.parameters, 0);
    this.zeroGradients();
  }
  get size(): number {
    return this.parameters.size;
  }
  /** [n] f32, added to by each backward pass. @throws LowrankError ERR_ARGUMENT if the adapter isn't trainable */
  get gradients(): Tensor {
    if (this.#gradients === null) throw new LowrankError('ERR_ARGUMENT', 'gradients: the adapter must be trainable (it was loaded without gradients)');
    return this.#gradients;
  }
  /** Sets every gradient to 0. */
  zeroGradients(): void {
    if (this.#gradients !== null) fillInplace(this.#gradients, 0);
  }
  /** Releases its memory, behind the work that is queued; more than once does no harm. */
  dispose(): void {
    this.parameters.dispose();
    this.#gradients?.dispose();
  }
}
