import { launch } from '../kernel.ts';
import { defineOp } from '../op.ts';
import type { Tensor } from '../tensor.ts';
import type { Heads } from './attention.ts';

/** RMS norm of each query head by wq [D] and of each key head by wk [D]; value heads are copied (Qwen3). x, y [T, (H+2G)·D]. */
export const qkNorm = defineOp((x: Tensor, wq: Tensor, wk: Tensor, { heads, kvHeads }: Heads, eps: number) => {
  const y = x.like();
  const r = x.device.empty([x.rows, heads + kvHeads]);
  launch('qk_norm', y, r, x, wq, wk, heads, kvHeads, eps);
  return {
    out: y,
    inputs: [x],
    saved: [x, r],
    rule: (dy) => {
      launch('qk_norm_grad', dy, dy, x, wq, wk, r, heads, kvHeads);
      return [dy];
    },
  };
});
