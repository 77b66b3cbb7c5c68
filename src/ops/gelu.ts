import { launch } from '../kernel.ts';
import { defineOp } from '../op.ts';
import type { Tensor } from '../tensor.ts';

/** `erf`: x·Φ(x) exactly (HF's `gelu`); `tanh`: the approximation (HF's `gelu_new`, `gelu_pytorch_tanh`). */
export type GeluForm = 'erf' | 'tanh';

/** y = x · Φ(x), any shape. (Hendrycks & Gimpel 2016) */
export const gelu = defineOp((x: Tensor, form: GeluForm) => {
  const number = form === 'erf' ? 0 : 1;
  const y = x.like();
  const make = (): void => launch('gelu', y, x, number);
  make();
  return {
    out: y,
    inputs: [x],
    saved: [x],
    remake: make,
    rule: (dy) => {
      launch('gelu_grad', dy, dy, x, number);
      return [dy];
    },
  };
});
