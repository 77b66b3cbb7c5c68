import { launch } from '../kernel.ts';
import { defineOp } from '../op.ts';
import type { Tensor } from '../tensor.ts';
import type { LinearOperands } from './linear.ts';
import { gradientsOf, type LoraOperands, partNumbers } from './lora_operands.ts';

export type { Dropout, LoraOperands } from './lora_operands.ts';

/**
 * y = x W0ᵀ + bias + s·(x̂ Aᵀ) Bᵀ (+ carry), x̂ = mask∘x/(1−p), for each part of a joined weight. x [T, K]; y [T, N]. W0 gets no
 * gradient; those of A and B are added to `da` and `db`, without which none passes to x. (Hu et al. 2021)
 */
export const loraLinear = defineOp((x: Tensor, frozen: LinearOperands, lora: LoraOperands, carry: Tensor | null = null) => {
  const { weight, bias } = frozen;
  const { a, b, da } = lora;
  const parts = partNumbers(lora);
  const y = x.like([x.rows, weight.rows]);
  const u = x.device.empty([x.rows, a.rows]);
  launch('lora_linear', y, u, x, weight, bias, carry, a, b, ...parts);
  return {
    out: y,
    inputs: [x, carry],
    saved: [x, u],
    trains: da !== null,
    rule: (dy, backward) => {
      if (!backward.needs(0) && da === null) return [null, dy];
      const gradients = gradientsOf(lora);
      const dx = backward.needs(0) ? x.like() : null;
      launch('lora_linear_grad', dx, ...gradients, dy, x, u, weight, a, b, ...parts);
      return [dx, dy];
    },
  };
});
