import { LowrankError } from '../error.ts';
import { makeBatch, type Batch } from './batch.ts';
import type { Dataset } from './dataset.ts';
import { firstFit } from './packing.ts';
import { randomBelow, shuffleInPlace } from './random.ts';

/** How samples are put in order and into batches. */
export interface BatchOrderOptions {
  /** Rows in a micro-batch: samples, or with packing rows of up to `seqLength` tokens that hold several samples each. */
  readonly batchSize: number;
  /** Micro-batches in the window of one optimizer step. */
  readonly accumulate: number;
  /** Whole number, 0 … 2^53-1. The order is a function of seed and epoch. */
  readonly seed: number;
  /** A new order each epoch; `false` keeps that of the file. */
  readonly shuffle: boolean;
  /** `first-fit` puts several samples into a row of `seqLength` tokens; they never attend to one another. */
  readonly packing: 'none' | 'first-fit';
  /** Tokens in a packed row; a longer sample has a row of its own. Not looked at without packing. */
  readonly seqLength: number;
}

/** How far a run is: `position` windows of `epoch` are done. All that resuming needs besides the options. */
export interface BatchState {
  readonly epoch: number;
  readonly position: number;
}

/** The micro-batches of one optimizer step. */
export interface BatchWindow {
  readonly batches: readonly Batch[];
  /** Targets in the whole window: what the step's loss is divided by. */
  readonly tokens: number;
  /** Where to continue after this window. */
  readonly state: BatchState;
  /** True for the last window of an epoch, which may be smaller than the others: nothing is left out. */
  readonly endsEpoch: boolean;
}

/**
 * Windows of micro-batches, epoch after epoch, without end: the caller counts steps or epochs (`window.state.epoch`).
 * `batches(dataset, options, window.state)` goes on exactly as the unbroken iteration would.
 *
 * @throws LowrankError ERR_ARGUMENT for options or a state out of range, at the call.
 * @example
 * ```ts
 * const options = { batchSize: 4, accumulate: 2, seed: 1, shuffle: true, packing: 'none', seqLength: 512 } as const;
 * for (const { batches: micro, tokens, state } of batches(dataset, options)) {
 *   if (state.epoch === 3) break;
 * }
 * ```
 */
export function batches(dataset: Dataset, options: BatchOrderOptions, state: BatchState = { epoch: 0, position: 0 }): Generator<BatchWindow, never> {
  checkOptions(options);
  if (dataset.length === 0) throw new LowrankError('ERR_ARGUMENT', `${dataset.source}: at least one sample is required (found none)`);
  checkWhole('state.epoch', state.epoch, 0);
  checkWhole('state.position', state.position, 0);
  const first = planEpoch(dataset, options, state.epoch);
  if (state.position > windowCount(first, options)) {
    throw new LowrankError('ERR_ARGUMENT', `batches: state.position must be within the epoch's ${windowCount(first, options)} windows (found ${state.position}); are data and options those of the saved run?`);
  }
  return windows(dataset, options, state, first);
}

/** Windows (optimizer steps) in an epoch. Without packing it is the same for every epoch. */
export function windowsInEpoch(dataset: Dataset, options: BatchOrderOptions, epoch = 0): number {
  checkOptions(options);
  if (options.packing === 'none') return Math.ceil(Math.ceil(dataset.length / options.batchSize) / options.accumulate);
  return windowCount(planEpoch(dataset, options, epoch), options);
}

function* windows(dataset: Dataset, options: BatchOrderOptions, start: BatchState, firstPlan: Rows): Generator<BatchWindow, never> {
  let plan = firstPlan;
  for (let { epoch, position } = start; ; epoch++, position = 0, plan = planEpoch(dataset, options, epoch)) {
    const count = windowCount(plan, options);
    for (; position < count; position++) {
      const endsEpoch = position + 1 === count;
      const state = endsEpoch ? { epoch: epoch + 1, position: 0 } : { epoch, position: position + 1 };
      const micro = windowAt(dataset, options, plan, position);
      yield { batches: micro, tokens: micro.reduce((sum, batch) => sum + batch.tokens, 0), state, endsEpoch };
    }
  }
}

/** Sample numbers, row by row. */
type Rows = ArrayLike<ArrayLike<number> | number>;

function windowCount(rows: Rows, options: BatchOrderOptions): number {
  return Math.ceil(rows.length / (options.batchSize * options.accumulate));
}

function windowAt(dataset: Dataset, options: BatchOrderOptions, rows: Rows, position: number): Batch[] {
  const start = position * options.batchSize * options.accumulate;
  const end = Math.min(start + options.batchSize * options.accumulate, rows.length);
  const micro: Batch[] = [];
  for (let at = start; at < end; at += options.batchSize) {
    const samples: number[] = [];
    for (let row = at; row < Math.min(at + options.batchSize, end); row++) {
      const content = rows[row]!;
      if (typeof content === 'number') samples.push(content);
      else samples.push(...Array.from(content));
    }
    micro.push(makeBatch(samples.map((index) => dataset.get(index))));
  }
  return micro;
}

/** The rows of an epoch, from seed and epoch alone. Streams 2e and 2e+1 of the generator order samples and packed rows. */
function planEpoch(dataset: Dataset, options: BatchOrderOptions, epoch: number): Rows {
  const order = Uint32Array.from({ length: dataset.length }, (_, i) => i);
  if (options.shuffle) shuffleInPlace(order, randomBelow(options.seed, 2 * epoch));
  if (options.packing === 'none') return order;
  const rows = firstFit(order, (index) => dataset.get(index).inputIds.length, options.seqLength);
  if (!options.shuffle) return rows;
  // First-fit draws short samples forward into early rows; shuffling the rows takes that drift out of the epoch again.
  const rowOrder = shuffleInPlace(Uint32Array.from(rows, (_, i) => i), randomBelow(options.seed, 2 * epoch + 1));
  return Array.from(rowOrder, (row) => rows[row]!);
}

function checkOptions(options: BatchOrderOptions): void {
  checkWhole('batchSize', options.batchSize, 1);
  checkWhole('accumulate', options.accumulate, 1);
  checkWhole('seed', options.seed, 0);
  if (options.packing !== 'none') checkWhole('seqLength', options.seqLength, 2);
}

function checkWhole(name: string, value: number, least: number): void {
  if (Number.isSafeInteger(value) && value >= least) return;
  throw new LowrankError('ERR_ARGUMENT', `batches: ${name} must be a whole number, at least ${least} (found ${value})`);
}
