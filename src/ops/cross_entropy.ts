import type { Weight } from '../device.ts';
import { launch } from '../kernel.ts';
import { defineOp } from '../op.ts';
import type { Tensor } from '../tensor.ts';

/** Operands of the loss besides the activations. */
export interface CrossEntropyOptions {
  /** [T] i32; −100 takes no part */
  readonly targets: Tensor;
  /** Where the token sum of the loss goes, [1]; the op's result is this tensor. */
  readonly loss: Tensor;
  /** What the gradient is multiplied by: 1 / tokens of the whole step. The seed given to the tape is not looked at. */
  readonly scale: number;
}

/**
 * Token-summed cross entropy of logits [T, V], which are overwritten by their gradient: nothing else of their size exists.
 */
export const crossEntropyInplace = defineOp((logits: Tensor, { targets, loss, scale }: CrossEntropyOptions) => {
  launch('cross_entropy_inplace', loss, logits, targets, scale);
  return {
    out: loss,
    inputs: [logits],
    saved: [logits],
    rule: () => [logits.view(logits.shape)],
  };
});

/**
 * Token-summed cross entropy of x Wᵀ without the logits ever existing as a whole: rows go through in chunks and dx is made on the
 * way. x [T, C], weight [V, C].
 */
export const linearCrossEntropy = defineOp((x: Tensor, weight: Weight, options: CrossEntropyOptions, gradient: 'wanted' | 'none') => {
  const { targets, loss, scale } = options;
  const dx = gradient === 'wanted' ? x.like() : null;
  launch('linear_cross_entropy', loss, dx, x, weight, targets, scale);
  return {
    out: loss,
    inputs: [x],
    saved: dx === null ? [] : [dx],
    rule: () => [dx === null ? null : dx.view(dx.shape)],
  };
});
