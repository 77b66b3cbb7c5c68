import { createHash } from 'node:crypto';
import type { Dataset } from '../data/dataset.ts';
import type { RunPlan } from './trainer-options.ts';

/** Everything that the numbers of a run depend on, by the name a user knows it by. */
export type RunSettings = Readonly<Record<string, string | number | boolean>>;

/** What must be the same for a resumed run to be the run it resumes. */
export function runSettings(plan: RunPlan): RunSettings {
  const { model, adapter, optimizer, dataset, order } = plan;
  const { family, parameters, dtype } = model.facts;
  return {
    model: `${family}, ${parameters} parameters, ${dtype}`,
    ...Object.fromEntries(Object.entries(adapter.config).map(([name, value]: [string, unknown]) => [`adapter.${name}`, plain(value)])),
    'adapter.seed': adapter.seed,
    data: contentOf(dataset),
    optimizer: optimizer.constructor.name,
    ...optimizerSettings(optimizer),
    schedule: plan.schedule,
    warmup: plan.warmup,
    // With a constant rate nothing depends on where the run ends, so it may be made longer.
    ...(plan.schedule === 'constant' ? {} : { steps: plan.steps }),
    batchSize: order.batchSize,
    accumulate: order.accumulate,
    seed: order.seed,
    shuffle: order.shuffle,
    packing: order.packing,
    ...(order.packing === 'none' ? {} : { seqLength: order.seqLength }),
    clip: plan.clip,
  };
}

function plain(value: unknown): string | number | boolean {
  return typeof value === 'number' || typeof value === 'boolean' || typeof value === 'string' ? value : JSON.stringify(value);
}

/** The optimizer's own numbers, whatever it is: its fields that are numbers or lists of them, but for the count of steps. */
function optimizerSettings(optimizer: object): Record<string, string | number> {
  return Object.fromEntries(
    Object.entries(optimizer).flatMap(([name, value]: [string, unknown]): [string, string | number][] => {
      if (name === 'steps') return [];
      if (typeof value === 'number') return [[name, value]];
      return Array.isArray(value) && value.every((entry) => typeof entry === 'number') ? [[name, value.join(', ')]] : [];
    }),
  );
}

/** Number of samples and a digest of their ids and labels: where the file lies and what it is called may change. */
function contentOf(dataset: Dataset): string {
  const hash = createHash('sha256');
  const add = (ids: Int32Array): void => void hash.update(new Uint8Array(ids.buffer, ids.byteOffset, ids.byteLength));
  for (let i = 0; i < dataset.length; i++) {
    const { inputIds, labels, positions } = dataset.get(i);
    hash.update(`${inputIds.length} ${positions === undefined ? 0 : 1} `);
    add(inputIds);
    if (labels !== inputIds) add(labels);
    if (positions) add(positions);
  }
  return `${dataset.length} samples, sha256 ${hash.digest('hex').slice(0, 16)}`;
}

/** One sentence for each setting that is not what it was. */
export function settingDifferences(saved: RunSettings, now: RunSettings): string[] {
  const names = new Set([...Object.keys(saved), ...Object.keys(now)]);
  return [...names].filter((name) => saved[name] !== now[name]).map((name) => `${name} was ${shown(saved[name])} and is ${shown(now[name])}`);
}

function shown(value: RunSettings[string] | undefined): string {
  return value === undefined ? 'not set' : String(value);
}
