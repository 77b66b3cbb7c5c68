import { launch } from '../kernel.ts';
import { defineOp } from '../op.ts';
import type { DType, Tensor } from '../tensor.ts';

/** y = a + b, of one shape. */
export const add = defineOp((a: Tensor, b: Tensor) => {
  const y = a.like();
  launch('add', y, a, b);
  return { out: y, inputs: [a, b], saved: [], rule: (dy) => [dy, dy] };
});

/** A new tensor with the same bytes. */
export const copy = defineOp((x: Tensor) => {
  const y = x.like();
  launch('copy', y, x);
  return { out: y, inputs: [x], saved: [], rule: (dy) => [dy] };
});

/** x in another float type, rounded to nearest even. No gradient. */
export function cast(x: Tensor, dtype: DType): Tensor {
  const y = x.device.empty(x.shape, dtype);
  launch('cast', y, x);
  return y;
}

/** x as its device stores activations: f32 numbers of one's own become the input of a 16-bit layer. Gradients come back in x's dtype. */
export const toActivation = defineOp((x: Tensor) => {
  const y = x.device.activation(x.shape);
  launch('cast', y, x);
  return {
    out: y,
    inputs: [x],
    saved: [],
    rule: (dy) => {
      const dx = x.like();
      launch('cast', dx, dy);
      return [dx];
    },
  };
});

/** Sets every element. */
export function fillInplace(y: Tensor, value: number): void {
  launch('fill', y, value);
}
