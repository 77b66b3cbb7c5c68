import { LowrankError } from '../error.ts';
import type { Model } from '../models/model.ts';
import type { Adapter } from './adapter.ts';

interface Adapters {
  readonly byName: Map<string, Adapter>;
  active: Adapter | null;
  /** Name of the adapter that is merged into the matrices at this moment. */
  merged: string | null;
}

const known = new WeakMap<Model, Adapters>();

function adaptersIn(model: Model): Adapters {
  const before = known.get(model);
  if (before !== undefined) return before;
  const fresh: Adapters = { byName: new Map(), active: null, merged: null };
  known.set(model, fresh);
  return fresh;
}

/** Every adapter on a model, in the order in which they came. */
export function adaptersOf(model: Model): readonly Adapter[] {
  return [...adaptersIn(model).byName.values()];
}

/** The adapter that takes part in the model's forward pass, or null. */
export function activeAdapter(model: Model): Adapter | null {
  return adaptersIn(model).active;
}

/**
 * Makes one of a model's adapters the active one; null leaves the base alone.
 *
 * @throws LowrankError ERR_ARGUMENT for a name that no adapter has, or while an adapter is merged.
 * @example
 * ```ts
 * await loadAdapter(model, './out', { name: 'german', trainable: false });
 * setAdapter(model, null); // the base
 * setAdapter(model, 'german');
 * ```
 */
export function setAdapter(model: Model, name: string | null): void {
  const adapters = adaptersIn(model);
  const next = name === null ? null : (adapters.byName.get(name) ?? null);
  if (name !== null && next === null) {
    const there = [...adapters.byName.keys()].join(', ') || 'none';
    throw new LowrankError('ERR_ARGUMENT', `setAdapter: must name an adapter of the model (${name} is none; there are: ${there})`);
  }
  if (next !== null) refuseWhileMerged(model, `setAdapter ${next.name}`);
  if (next === adapters.active) return;
  for (const { linear } of adapters.active?.sites ?? []) linear.lora = null;
  for (const { linear, operands } of next?.sites ?? []) linear.lora = operands;
  adapters.active = next;
}

/** @internal Throws unless an adapter of this name can be added. */
export function refuseName(model: Model, name: string): void {
  refuseWhileMerged(model, `adapter ${name}`);
  if (name === '') throw new LowrankError('ERR_ARGUMENT', 'adapter: must have a name (it is empty)');
  if (adaptersIn(model).byName.has(name)) {
    throw new LowrankError('ERR_ARGUMENT', `adapter ${name}: must have a name of its own (the model has an adapter of that name; give another one as \`name\`, or dispose of that)`);
  }
}

/** @internal */
export function enroll(adapter: Adapter): void {
  adaptersIn(adapter.model).byName.set(adapter.name, adapter);
}

/** @internal Called by an adapter that is disposed of. */
export function expel(adapter: Adapter): void {
  const adapters = adaptersIn(adapter.model);
  if (adapters.active === adapter) setAdapter(adapter.model, null);
  adapters.byName.delete(adapter.name);
}

/** @internal Notes what is merged into a model's matrices. */
export function setMerged(model: Model, name: string | null): void {
  adaptersIn(model).merged = name;
}

/** @internal An active adapter on top of its own merged copy would count twice. */
export function refuseWhileMerged(model: Model, subject: string): void {
  const { merged } = adaptersIn(model);
  if (merged !== null) throw new LowrankError('ERR_ARGUMENT', `${subject}: no adapter may be merged (${merged} is; call unmerge() first, or dispose() of what mergeAdapter returned to keep the merged weights)`);
}
