import { loadDataset, type Dataset } from '../data/dataset.ts';
import { LowrankError } from '../error.ts';
import type { Model } from '../models/model.ts';
import type { Session } from './session.ts';

/** Tokens of a row when nothing is said: enough for most tasks, and activations stay small. */
const usualLength = 512;

/** `--seq-length`, or what the model takes of the usual length. @throws LowrankError ERR_ARGUMENT */
export function rowLength(asked: number | undefined, { facts: { maxPositions } }: Pick<Model, 'facts'>): number {
  if (asked === undefined) return Math.min(usualLength, maxPositions);
  if (asked <= maxPositions) return asked;
  throw new LowrankError('ERR_ARGUMENT', `--seq-length: must be at most ${maxPositions}, the model's positions (it is ${asked})`);
}

/** Loads rows and says on stderr what was left out or cut. @throws LowrankError ERR_DATA, ERR_FILE, ERR_ARGUMENT */
export async function readRows(file: string, { tokenizer, model }: Session, maxLength: number): Promise<Dataset> {
  const dataset = await loadDataset(file, { tokenizer, maxLength, vocabSize: model.facts.vocabSize });
  const notes = [
    ...(dataset.truncated > 0 ? [`${dataset.truncated} longer than ${maxLength} tokens lost their end`] : []),
    ...(dataset.skipped > 0 ? [`${dataset.skipped} with nothing to learn were left out`] : []),
  ];
  if (notes.length > 0) process.stderr.write(`${file}: of its rows, ${notes.join('; ')}\n`);
  return dataset;
}
