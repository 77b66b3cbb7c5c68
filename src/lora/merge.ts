import { LowrankError } from '../error.ts';
import type { Model } from '../models/model.ts';
import type { Linear } from '../nn/linear.ts';
import { loraMerge } from '../ops/lora_merge.ts';
import { keep } from '../scope.ts';
import type { Tensor } from '../tensor.ts';
import type { Adapter } from './adapter.ts';
import type { LoraSite } from './layout.ts';
import { activeAdapter, refuseWhileMerged, setAdapter, setMerged } from './model-adapters.ts';

/** An adapter that is part of its model's weights at this moment. */
export interface Merged {
  /** Puts the old matrices back, the very tensors, and the adapter that was active. Twice is once. */
  unmerge(): void;
  /** Gives the old matrices up: the merged ones are the model's from now on. Nothing after `unmerge`. */
  dispose(): void;
  /** The end of a `using` block. */
  [Symbol.dispose](): void;
}

/**
 * Merges an adapter: each adapted layer gets a new matrix W + scale·B·A, computed in f32 and rounded once to W's dtype. The adapter
 * is inactive meanwhile, and so are all others. Needs memory for a second copy of the adapted matrices until `dispose` or `unmerge`.
 *
 * @throws LowrankError ERR_ARGUMENT if an adapter is merged already or belongs to another model; ERR_DISPOSED, ERR_MEMORY
 * @example
 * ```ts
 * const merged = mergeAdapter(model, adapter);
 * // … generate …
 * merged.unmerge();
 * ```
 */
export function mergeAdapter(model: Model, adapter: Adapter): Merged {
  if (adapter.model !== model) throw new LowrankError('ERR_ARGUMENT', `mergeAdapter ${adapter.name}: must be an adapter of this model (it is another's)`);
  adapter.parameters(); // throws when disposed
  refuseWhileMerged(model, `mergeAdapter ${adapter.name}`);
  const fresh = mergedMatrices(adapter.sites);
  const active = activeAdapter(model);
  setAdapter(model, null);
  const old = adapter.sites.map(({ linear }, i) => ({ linear, matrices: linear.exchange(fresh[i] as Tensor[]) }));
  setMerged(model, adapter.name);
  let open = true;
  const once = (body: () => void) => () => {
    if (!open) return;
    open = false;
    setMerged(model, null);
    body();
  };
  const unmerge = once(() => {
    for (const { linear, matrices } of old) disposeReplaced(linear.exchange(matrices), matrices);
    if (active !== null && !active.disposed) setAdapter(model, active.name);
  });
  const dispose = once(() => {
    for (const { linear, matrices } of old) disposeReplaced(matrices, currentOf(linear));
  });
  return { unmerge, dispose, [Symbol.dispose]: dispose };
}

/** By site: the merged matrix of each adapted part, the present one of the others. Disposes of all if one can't be made. */
function mergedMatrices(sites: readonly LoraSite[]): Tensor[][] {
  const made: Tensor[] = [];
  try {
    return sites.map(({ linear, modules }) =>
      linear.parts.map(({ matrix }, part) => {
        const module = modules[part];
        if (module === null || module === undefined) return matrix;
        const merged = keep(loraMerge(matrix, module.a, module.b, module.scale, linear.order));
        made.push(merged);
        return merged;
      }),
    );
  } catch (error) {
    for (const matrix of made) matrix.dispose();
    throw error;
  }
}

function currentOf(linear: Linear): readonly Tensor[] {
  return linear.parts.map(({ matrix }) => matrix);
}

/** Parts without an adapter are the same tensor before and after. */
function disposeReplaced(before: readonly Tensor[], after: readonly Tensor[]): void {
  for (const matrix of before) if (!after.includes(matrix)) matrix.dispose();
}
