import { launch } from '../kernel.ts';
import { defineOp } from '../op.ts';
import type { Tensor } from '../tensor.ts';
import type { Heads } from './attention.ts';

/**
 * Rotary embedding of the query and key heads, in place: the result is x itself. x [T, (H+2G)·D], positions [T] i32 below P, table
 * [P, E] with cos in the first E/2 columns and sin in the others.
 */
export const ropeInplace = defineOp((x: Tensor, positions: Tensor, table: Tensor, { heads, kvHeads }: Heads) => {
  launch('rope_inplace', x, positions, table, heads, kvHeads, 1);
  return {
    out: x,
    inputs: [x],
    saved: [positions],
    rule: (dy) => {
      launch('rope_inplace', dy, positions, table, heads, kvHeads, -1);
      return [dy];
    },
  };
});
