import type { Batch } from '../data/batch.ts';
import type { Adapter } from '../lora/adapter.ts';
import type { Checkpointing, Model } from '../models/model.ts';
import { estimateMemory, weightBytes } from './memory-estimate.ts';

export interface Together {
  readonly checkpointing: Checkpointing;
  /** null: where it helps. */
  readonly layerByLayer: boolean | null;
}

/**
 * How many micro-batches of a step go through the layers together. More than one helps where weights don't all fit, since each is then
 * brought once for all of them; but each keeps what it saves meanwhile.
 */
export function microBatchesTogether(model: Model, adapter: Adapter, window: readonly Batch[], { checkpointing, layerByLayer }: Together): number {
  if (layerByLayer !== null) return layerByLayer ? window.length : 1;
  if (window.length === 1 || checkpointing === 'none') return 1;
  const room = model.device.weightRoom();
  if (room >= weightBytes(model)) return 1;
  const tokens = Math.max(...window.map(({ inputIds }) => inputIds.length));
  const { activations, working, adapter: own } = estimateMemory(model, adapter, { tokens, checkpointing });
  // Where activations share the memory with weights, what is kept for longer must not push much of those out.
  const { freeMemory } = model.device.info;
  const free = freeMemory > 0 ? 0.9 * (freeMemory - room) - working - own : room / 2;
  return Math.min(window.length, Math.max(1, Math.floor(free / activations)));
}
