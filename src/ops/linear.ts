import type { Weight } from '../device.ts';
import { launch } from '../kernel.ts';
import { defineOp } from '../op.ts';
import type { Tensor } from '../tensor.ts';

/** The frozen part of a linear layer. */
export interface LinearOperands {
  readonly weight: Weight; // [N, K], frozen
  readonly bias: Tensor | null; // [N] f32
}

/** y = x Wᵀ + bias (+ carry, a residual stream that is added in the same pass). x [T, K]; y [T, N]. */
export const linear = defineOp((x: Tensor, { weight, bias }: LinearOperands, carry: Tensor | null = null) => {
  const y = x.like([x.rows, weight.rows]);
  launch('linear', y, x, weight, bias, carry);
  return {
    out: y,
    inputs: [x, carry],
    saved: [],
    rule: (dy, backward) => {
      if (!backward.needs(0)) return [null, dy];
      const dx = dy.like([dy.rows, weight.in]);
      launch('linear_grad', dx, dy, weight);
      return [dx, dy];
    },
  };
});
