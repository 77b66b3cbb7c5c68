import { windowsInEpoch, type BatchOrderOptions } from '../data/order.ts';
import type { Dataset } from '../data/dataset.ts';
import { throwFaults } from '../error.ts';
import type { Adapter } from '../lora/adapter.ts';
import type { Checkpointing, Model } from '../models/model.ts';
import type { Optimizer } from '../optim/optimizer.ts';
import { scheduleKinds, type ScheduleKind } from '../optim/schedule.ts';

/** A run: what is trained, on what, how long, and what is written. */
export interface TrainerOptions {
  readonly model: Model;
  /** The one to train; it must be active on the model. */
  readonly adapter: Adapter;
  /** Over `adapter.parameters()`. Its `lr` is the highest rate of the schedule. */
  readonly optimizer: Optimizer;
  readonly dataset: Dataset;
  /** Optimizer steps in all, or epochs (parts of one too); not both. 1 epoch. */
  readonly steps?: number;
  readonly epochs?: number;
  /** Rows in a micro-batch; 4. */
  readonly batchSize?: number;
  /** Micro-batches in a step; 1. */
  readonly accumulate?: number;
  /** Order of the data; 0. */
  readonly seed?: number;
  /** true */
  readonly shuffle?: boolean;
  /** `first-fit` puts several samples into a row of `seqLength` tokens; `none`. */
  readonly packing?: 'none' | 'first-fit';
  /** Tokens in a packed row; the longest sample's. */
  readonly seqLength?: number;
  /** How the rate goes, step by step; `constant`. */
  readonly schedule?: ScheduleKind;
  /** Steps of linear rise from 0; 0. */
  readonly warmup?: number;
  /** Greatest norm of the gradient; 0 (not clipped). */
  readonly clip?: number;
  /** `blocks` holds only the inputs of each block and runs it again on the way back; `none`. */
  readonly checkpointing?: Checkpointing;
  /** Whether the micro-batches of a step go through each layer together, as {@link TrainStepOptions.layerByLayer} says. */
  readonly layerByLayer?: boolean;
  /** Held-out data: measured before the first step, every `evalEvery` steps and at the end. */
  readonly evalDataset?: Dataset;
  /** 0: only before and at the end. */
  readonly evalEvery?: number;
  /** Folder of the run: the adapter in the end, and its checkpoints. Without one nothing is written. */
  readonly out?: string;
  /** A checkpoint every so many steps; 0: only in the end, or when the run is stopped. */
  readonly saveEvery?: number;
  /** How many checkpoints stay; 2. */
  readonly keep?: number;
  /** Goes on from the newest whole checkpoint in `out`, or from the one named; starts anew if `out` has none. */
  readonly resume?: boolean | string;
  /** Ends the run after the step that is under way, with a checkpoint. */
  readonly signal?: AbortSignal;
  /** Steps in a row that may be not finite before the run gives up; 5. */
  readonly patience?: number;
}

/** Everything decided. */
export interface RunPlan {
  readonly model: Model;
  readonly adapter: Adapter;
  readonly optimizer: Optimizer;
  readonly dataset: Dataset;
  readonly order: BatchOrderOptions;
  /** Optimizer steps in all. */
  readonly steps: number;
  readonly schedule: ScheduleKind;
  readonly warmup: number;
  readonly clip: number;
  readonly checkpointing: Checkpointing;
  readonly layerByLayer: boolean | null;
  readonly evalDataset: Dataset | null;
  readonly evalEvery: number;
  readonly out: string | null;
  readonly saveEvery: number;
  readonly keep: number;
  readonly resume: boolean | string;
  readonly patience: number;
}

/** Fills in defaults and refuses what can't be, all in one error. @throws LowrankError ERR_ARGUMENT */
export function planRun(options: TrainerOptions): RunPlan {
  throwFaults('ERR_ARGUMENT', 'Trainer', optionFaults(options));
  const { dataset } = options;
  const order: BatchOrderOptions = {
    batchSize: options.batchSize ?? 4,
    accumulate: options.accumulate ?? 1,
    seed: options.seed ?? 0,
    shuffle: options.shuffle ?? true,
    packing: options.packing ?? 'none',
    seqLength: options.seqLength ?? longest(dataset),
  };
  return {
    model: options.model,
    adapter: options.adapter,
    optimizer: options.optimizer,
    dataset,
    order,
    steps: options.steps ?? stepsOf(options.epochs ?? 1, dataset, order),
    schedule: options.schedule ?? 'constant',
    warmup: options.warmup ?? 0,
    clip: options.clip ?? 0,
    checkpointing: options.checkpointing ?? 'none',
    layerByLayer: options.layerByLayer ?? null,
    evalDataset: options.evalDataset ?? null,
    evalEvery: options.evalEvery ?? 0,
    out: options.out ?? null,
    saveEvery: options.saveEvery ?? 0,
    keep: options.keep ?? 2,
    resume: options.resume ?? false,
    patience: options.patience ?? 5,
  };
}

function optionFaults(options: TrainerOptions): string[] {
  const least: Readonly<Record<string, number>> = { steps: 1, batchSize: 1, accumulate: 1, seed: 0, seqLength: 2, warmup: 0, evalEvery: 0, saveEvery: 0, keep: 1, patience: 1 };
  const faults = Object.entries(least).flatMap(([name, lowest]) => {
    const value = options[name as keyof TrainerOptions];
    return value === undefined || (Number.isSafeInteger(value) && (value as number) >= lowest) ? [] : [`${name} must be a whole number of at least ${lowest} (it is ${String(value)})`];
  });
  const { epochs, steps, clip = 0, schedule = 'constant', packing = 'none', out, resume } = options;
  if (epochs !== undefined && !(Number.isFinite(epochs) && epochs > 0)) faults.push(`epochs must be a number above 0 (it is ${epochs})`);
  if (epochs !== undefined && steps !== undefined) faults.push('steps and epochs must not both be given');
  if (!(Number.isFinite(clip) && clip >= 0)) faults.push(`clip must be a number of at least 0 (it is ${clip})`);
  if (!scheduleKinds.includes(schedule)) faults.push(`schedule must be one of ${scheduleKinds.join(', ')} (it is ${String(schedule)})`);
  if (packing !== 'none' && packing !== 'first-fit') faults.push(`packing must be none or first-fit (it is ${String(packing)})`);
  if (resume === true && out === undefined) faults.push('resume must have a folder to look in: name out, or the checkpoint itself');
  if ((options.saveEvery ?? 0) > 0 && out === undefined) faults.push('saveEvery must have a folder to save in: name out');
  if ((options.evalEvery ?? 0) > 0 && options.evalDataset === undefined) faults.push('evalEvery must have data to measure on: give evalDataset');
  return [...faults, ...ownershipFaults(options)];
}

function ownershipFaults({ model, adapter, optimizer }: TrainerOptions): string[] {
  const faults: string[] = [];
  if (adapter.model !== model) faults.push(`adapter "${adapter.name}" must be attached to this model (it is attached to another)`);
  if (!adapter.trainable) faults.push(`adapter "${adapter.name}" must be trainable (it was loaded with trainable: false)`);
  else if (optimizer.arena !== adapter.parameters()) faults.push('optimizer must be made over adapter.parameters() (it has other parameters)');
  return faults;
}

function longest(dataset: Dataset): number {
  let most = 2;
  for (let i = 0; i < dataset.length; i++) most = Math.max(most, dataset.get(i).inputIds.length);
  return most;
}

/** Epochs in optimizer steps; with packing each epoch may have another number of them. */
function stepsOf(epochs: number, dataset: Dataset, order: BatchOrderOptions): number {
  let steps = 0;
  for (let epoch = 0; epoch < epochs; epoch++) steps += Math.ceil(Math.min(1, epochs - epoch) * windowsInEpoch(dataset, order, epoch));
  return Math.max(1, steps);
}
