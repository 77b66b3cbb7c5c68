import type { Device } from '../device.ts';
import { fillInplace } from '../ops/elementwise.ts';
import type { Tensor } from '../tensor.ts';

/** A run of numbers in the arena that share a rate: all A's, or all B's. */
export interface ParameterGroup {
  readonly name: 'A' | 'B';
  readonly begin: number;
  readonly count: number;
}

/**
 * All trainable numbers of an adapter, flat: first every A, then every B. A and B are views; zeroing is one fill, the norm one
 * reduction, an optimizer step one launch a group.
 */
export class ParameterArena {
  readonly device: Device;
  readonly parameters: Tensor; // [n] f32
  readonly gradients: Tensor; // [n] f32
  readonly groups: readonly ParameterGroup[];

  constructor(device: Device, countA: number, countB: number) {
    this.device = device;
    this.parameters = device.empty([countA + countB]);
    this.gradients = device.empty([countA + countB]);
    this.groups = [
      { name: 'A', begin: 0, count: countA },
      { name: 'B', begin: countA, count: countB },
    ];
    fillInplace(this.parameters, 0);
    fillInplace(this.gradients, 0);
  }
  get size(): number {
    return this.parameters.size;
  }
  zeroGradients(): void {
    fillInplace(this.gradients, 0);
  }
  dispose(): void {
    this.parameters.dispose();
    this.gradients.dispose();
  }
}
