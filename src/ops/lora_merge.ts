import type { WeightOrder } from '../device.ts';
import { launch } from '../kernel.ts';
import type { Tensor } from '../tensor.ts';

/** W + scale·B·A as a new tensor of W's dtype, rounded once. w [N, K] (or [K, N] with `in_out`), a [r, K], b [N, r]. */
export function loraMerge(w: Tensor, a: Tensor, b: Tensor, scale: number, order: WeightOrder): Tensor {
  const merged = w.like();
  launch('lora_merge', merged, w, a, b, scale, order === 'out_in' ? 0 : 1);
  return merged;
}
