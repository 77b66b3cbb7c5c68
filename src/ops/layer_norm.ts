import { launch } from '../kernel.ts';
import { defineOp } from '../op.ts';
import type { Tensor } from '../tensor.ts';

/**
 * y = w · (x − mean) / sqrt(var + eps) + b, row by row. x [N, C], w and b [C] f32 and frozen; y [N, C].
 *
 * @throws LowrankError ERR_SHAPE, ERR_DTYPE
 */
export const layerNorm = defineOp((x: Tensor, w: Tensor, b: Tensor, eps: number) => {
  const y = x.like();
  const mean = x.device.empty([x.rows]);
  const r = x.device.empty([x.rows]);
  const make = (): void => launch('layer_norm', y, mean, r, x, w, b, eps);
  make();
  return {
    out: y,
    inputs: [x],
    saved: [x, mean, r],
    remake: make,
    rule: (dy, backward) => {
      const carry = backward.takePending(0);
      const dx = carry ?? x.like();
      launch('layer_norm_grad', dx, dy, x, w, mean, r, carry);
      return [dx];
    },
  };
});
