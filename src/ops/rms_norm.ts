import { launch } from '../kernel.ts';
import { defineOp } from '../op.ts';
import type { Tensor } from '../tensor.ts';

/**
 * y = w · x / sqrt(mean(x²) + eps), row by row. x [N, C], w [C] f32 and frozen; y [N, C].
 *
 * @throws LowrankError ERR_SHAPE, ERR_DTYPE
 * @example
 * ```ts
 * import { openDevice, ops } from 'lowrank';
 * await using device = await openDevice('cpu');
 * using x = device.tensor(new Float32Array([3, 4]), [1, 2]);
 * using w = device.tensor(new Float32Array([1, 1]));
 * using y = ops.rmsNorm(x, w, 1e-6);
 * ```
 */
export const rmsNorm = defineOp((x: Tensor, w: Tensor, eps: number) => {
  const y = x.like();
  const r = x.device.empty([x.rows]);
  const make = (): void => launch('rms_norm', y, r, x, w, eps);
  make();
  return {
    out: y,
    inputs: [x],
    saved: [x, r],
    remake: make,
    rule: (dy, backward) => {
      const carry = backward.takePending(0);
      const dx = carry ?? x.like();
      launch('rms_norm_grad', dx, dy, x, w, r, carry);
      return [dx];
    },
  };
});
