import { launch } from '../kernel.ts';
import { defineOp } from '../op.ts';
import type { Tensor } from '../tensor.ts';

/** y = silu(gate) · up for x = gate | up. x [T, 2F]; y [T, F]. (Shazeer 2020) */
export const swiglu = defineOp((x: Tensor) => {
  const y = x.like([x.rows, x.cols / 2]);
  const make = (): void => launch('swiglu', y, x);
  make();
  return {
    out: y,
    inputs: [x],
    saved: [x],
    remake: make,
    rule: (dy) => {
      const dx = x.like();
      launch('swiglu_grad', dx, dy, x);
      return [dx];
    },
  };
});
