import { LowrankError } from '../error.ts';
import type { Model } from '../models/model.ts';
import { Adapter } from './adapter.ts';
import { normalizeLoraConfig, type LoraConfig, type ResolvedLoraConfig } from './config.ts';
import { drawA } from './init.ts';
import { refuseName, setAdapter } from './model-adapters.ts';
import { otherModules, usualTargets } from './other-modules.ts';
import { selectTargets, type LayerLora } from './targets.ts';

/** An adapter's settings, by lowrank's names or PEFT's, and what makes it one of several. */
export interface AttachConfig extends LoraConfig {
  /** `'default'` */
  readonly name?: string;
  /** Of the first A and of dropout, up to 2^53; 0. */
  readonly seed?: number;
}

/**
 * Puts a new adapter on a model and makes it the active one: A drawn, B zero, so that nothing changes yet.
 *
 * @throws LowrankError ERR_ARGUMENT with every wrong setting, for targets that match nothing, or a name that is taken;
 * ERR_UNSUPPORTED for targets that are no linear layers; ERR_MEMORY
 * @example
 * ```ts
 * const adapter = attachLora(model, { rank: 16, alpha: 32, targets: 'all-linear' });
 * const optimizer = new AdamW(adapter.parameters(), { lr: 2e-4 });
 * ```
 */
export function attachLora(model: Model, { name = 'default', seed = 0, ...settings }: AttachConfig = {}): Adapter {
  const config = normalizeLoraConfig(settings);
  checkSeed(seed);
  refuseName(model, name);
  const selected = selectLayers(model, config);
  const adapter = new Adapter(model, { name, config, selected, trainable: true, seed, baseModel: model.facts.folder, kept: {} });
  for (const { name: module, a } of adapter.modules) a.upload(drawA({ kind: config.init, seed, name: module, shape: a.shape as [number, number] }));
  setAdapter(model, name);
  return adapter;
}

/** @internal The layers that a config adapts in a model, by name. */
export function selectLayers(model: Model, config: ResolvedLoraConfig): Map<string, LayerLora> {
  const names = model.linears.flatMap(({ parts }) => parts.map((part) => part.name));
  return selectTargets(names, config, { outputHead: model.facts.outputHead, defaultTargets: usualTargets(model.facts), others: otherModules(model.facts) });
}

/** @internal */
export function checkSeed(seed: number): void {
  if (!(Number.isSafeInteger(seed) && seed >= 0)) throw new LowrankError('ERR_ARGUMENT', `seed: must be a whole number from 0 to 2^53 - 1 (it is ${seed})`);
}
