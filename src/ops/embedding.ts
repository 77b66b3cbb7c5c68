import { launch } from '../kernel.ts';
import type { Tensor } from '../tensor.ts';

/** A second table that is added by position (GPT-2). */
export interface PositionEmbedding {
  /** [T] i32 */
  readonly positions: Tensor;
  /** [P, C], frozen */
  readonly table: Tensor;
}

/**
 * y_t = table[ids_t] (+ position row). ids [T] i32, table [V, C] frozen, f32 or 16 bits; y [T, C] in the device's
 * dtype for activations. The tables are frozen and
 * ids have no gradient, so nothing is recorded. An id outside the table is ERR_RANGE at the next fence.
 */
export function embedding(ids: Tensor, table: Tensor, position: PositionEmbedding | null = null): Tensor {
  const y = ids.device.activation([ids.size, table.cols]);
  launch('embedding', y, ids, table, position?.positions ?? null, position?.table ?? null);
  return y;
}
