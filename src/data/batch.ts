import { LowrankError } from '../error.ts';
import { IGNORE, type Sample } from './sample.ts';

/** One micro-batch, packed: S sequences one after the other, T tokens in all, no padding token anywhere. */
export interface Batch {
  readonly inputIds: Int32Array; // [T]
  /** `[T]`: labels shifted inside each sequence, `targets[t] = labels[t+1]`; the last of each sequence is IGNORE (-100). */
  readonly targets: Int32Array;
  readonly positions: Int32Array; // [T], from 0 in each sequence unless the sample says otherwise
  readonly offsets: Int32Array; // [S+1]: sequence s is offsets[s] … offsets[s+1]; offsets[0] = 0, offsets[S] = T
  /** How many targets are not IGNORE: what the token sum of the loss is divided by. May be 0. */
  readonly tokens: number;
}

/**
 * Joins samples into one packed micro-batch.
 *
 * @throws LowrankError ERR_ARGUMENT without samples, ERR_SHAPE for a sample that is empty or whose arrays differ in length.
 * @example
 * ```ts
 * const ids = Int32Array.of(5, 6, 7);
 * makeBatch([{ inputIds: ids, labels: ids }]).targets; // Int32Array [6, 7, -100]
 * ```
 */
export function makeBatch(samples: readonly Sample[]): Batch {
  if (samples.length === 0) throw new LowrankError('ERR_ARGUMENT', 'makeBatch: at least one sample is required (found none)');
  const offsets = offsetsOf(samples);
  const total = offsets[samples.length]!;
  const inputIds = new Int32Array(total);
  const targets = new Int32Array(total).fill(IGNORE);
  const positions = new Int32Array(total);
  samples.forEach((sample, s) => {
    const start = offsets[s]!;
    inputIds.set(sample.inputIds, start);
    targets.set(sample.labels.subarray(1), start);
    if (sample.positions) positions.set(sample.positions, start);
    else for (let t = 0; t < sample.inputIds.length; t++) positions[start + t] = t;
  });
  let tokens = 0;
  for (const target of targets) if (target !== IGNORE) tokens++;
  return { inputIds, targets, positions, offsets, tokens };
}

function offsetsOf(samples: readonly Sample[]): Int32Array {
  const offsets = new Int32Array(samples.length + 1);
  samples.forEach((sample, s) => {
    const length = sample.inputIds.length;
    const fits = length > 0 && sample.labels.length === length && (sample.positions?.length ?? length) === length;
    if (!fits) {
      const found = `sample ${s} has ${length} ids, ${sample.labels.length} labels, ${sample.positions?.length ?? 'no'} positions`;
      throw new LowrankError('ERR_SHAPE', `makeBatch: ids, labels and positions must be as many, and at least one (${found})`);
    }
    offsets[s + 1] = offsets[s]! + length;
  });
  return offsets;
}
