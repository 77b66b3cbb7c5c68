import { stat } from 'node:fs/promises';
import path from 'node:path';
import { LowrankError } from '../error.ts';
import { faultList, RowFault, type FaultList } from './faults.ts';
import { readCsv } from './read-csv.ts';
import { readJsonl, type RawRow } from './read-lines.ts';
import { readParquet } from './read-parquet.ts';
import { rowToSample } from './row-to-sample.ts';
import { trainableTokens, truncateSample, type Sample } from './sample.ts';
import { textBlocks } from './text-blocks.ts';
import type { Tokenizer } from './tokenizer.ts';

/** Samples in the order of their file, tokenised, in memory. */
export interface Dataset {
  readonly length: number;
  /** @throws LowrankError ERR_ARGUMENT when there is no sample `index`. */
  get(index: number): Sample;
  /** The file, as it was named. */
  readonly source: string;
  /** Rows that were longer than `maxLength` and lost their end. */
  readonly truncated: number;
  /** Rows left out because no token of theirs can be learned, after truncation that is; `input_ids` rows always stay. */
  readonly skipped: number;
}

/** How rows become samples. */
export interface DatasetOptions {
  /** Null will do for files of `input_ids`. */
  readonly tokenizer: Tokenizer | null;
  /** Most tokens of a sample, at least 2. */
  readonly maxLength: number;
  /** Tokens in a block of a .txt file (by default `maxLength`). */
  readonly textBlock?: number;
  /** Size of the model's vocabulary; ids must be below it. By default that of the tokenizer, which may be smaller. */
  readonly vocabSize?: number;
}

/**
 * Reads a .jsonl, .csv, .parquet or .txt file into samples. Rows of different kinds may stand in one file.
 *
 * @throws LowrankError ERR_DATA with file and line of what is wrong (up to ten faults at once), ERR_FILE when the file
 *   can't be read, ERR_ARGUMENT for another kind of file.
 * @example
 * ```ts
 * const data = await loadDataset('train.jsonl', { tokenizer: await loadTokenizer('./SmolLM-135M'), maxLength: 512 });
 * console.log(data.length, data.get(0).inputIds);
 * ```
 */
export async function loadDataset(file: string, options: DatasetOptions): Promise<Dataset> {
  checkLength('maxLength', options.maxLength);
  if (options.textBlock !== undefined) checkLength('textBlock', options.textBlock);
  const kind = path.extname(file).toLowerCase();
  const read = READERS[kind];
  if (!read && kind !== '.txt') {
    throw new LowrankError('ERR_ARGUMENT', `${file}: a data file must be .jsonl, .txt, .csv or .parquet (found "${kind || path.basename(file)}")${kind === '.json' ? '; `jq -c .[] in.json > out.jsonl` makes lines of a JSON array' : ''}`);
  }
  await checkFile(file);
  const samples: Sample[] = [];
  const counts = read ? await loadRows(file, read, kind, options, samples) : await loadText(file, options, samples);
  checkNotEmpty(file, samples, counts);
  return {
    length: samples.length,
    source: file,
    truncated: counts.truncated,
    skipped: counts.skipped,
    get(index) {
      const sample = samples[index];
      if (sample) return sample;
      throw new LowrankError('ERR_ARGUMENT', `${file}: a sample's index must be 0 … ${samples.length - 1} (found ${index})`);
    },
  };
}

const READERS: Readonly<Record<string, (file: string, faults: FaultList) => AsyncGenerator<RawRow>>> = {
  '.jsonl': readJsonl,
  '.csv': readCsv,
  '.parquet': readParquet,
};

interface Counts {
  readonly rows: number;
  readonly truncated: number;
  readonly skipped: number;
}

async function loadRows(file: string, read: (file: string, faults: FaultList) => AsyncGenerator<RawRow>, kind: string, options: DatasetOptions, samples: Sample[]): Promise<Counts> {
  const faults = faultList(file, (place) => (kind === '.parquet' ? `${file}: row ${place}` : `${file}:${place}`));
  const reading = { tokenizer: options.tokenizer, vocabSize: options.vocabSize ?? options.tokenizer?.vocabSize ?? null };
  let [rows, truncated, skipped] = [0, 0, 0];
  for await (const { place, row } of read(file, faults)) {
    rows++;
    try {
      const whole = rowToSample(row, reading);
      const sample = truncateSample(whole, options.maxLength);
      if (sample !== whole) truncated++;
      // Rows of ids may be someone's exact batches, so their number and order are left alone.
      if (row['input_ids'] || trainableTokens(sample) > 0) samples.push(sample);
      else skipped++;
    } catch (fault) {
      if (!(fault instanceof RowFault)) throw fault;
      faults.add(place, fault.message);
    }
  }
  faults.settle();
  return { rows, truncated, skipped };
}

async function loadText(file: string, options: DatasetOptions, samples: Sample[]): Promise<Counts> {
  if (!options.tokenizer) throw new LowrankError('ERR_ARGUMENT', `${file}: a .txt file needs a tokenizer (found none)`);
  const vocabSize = options.vocabSize ?? options.tokenizer.vocabSize;
  for await (const sample of textBlocks(file, options.tokenizer, options.textBlock ?? options.maxLength)) {
    const beyond = sample.inputIds.find((id) => id >= vocabSize);
    if (beyond !== undefined) throw new LowrankError('ERR_DATA', `${file}: token ids must be below ${vocabSize}, the vocabulary (the tokenizer made ${beyond}; is it the model's own?)`);
    samples.push(sample);
  }
  return { rows: samples.length, truncated: 0, skipped: 0 };
}

function checkNotEmpty(file: string, samples: readonly Sample[], { rows, skipped }: Counts): void {
  if (rows === 0) throw new LowrankError('ERR_DATA', `${file}: must hold at least one row (found an empty file)`);
  if (samples.some((sample) => trainableTokens(sample) > 0)) return;
  throw new LowrankError('ERR_DATA', `${file}: must have at least one token to learn (found none in ${rows} rows${skipped > 0 ? '; are prompts longer than the maximum length?' : ''})`);
}

function checkLength(name: string, value: number): void {
  if (Number.isSafeInteger(value) && value >= 2) return;
  throw new LowrankError('ERR_ARGUMENT', `loadDataset: ${name} must be a whole number, at least 2 (found ${value})`);
}

async function checkFile(file: string): Promise<void> {
  let found: string;
  try {
    const info = await stat(file);
    if (info.isFile()) return;
    found = info.isDirectory() ? 'a folder' : 'something else';
  } catch (cause) {
    const code = (cause as NodeJS.ErrnoException).code;
    throw new LowrankError('ERR_FILE', `${file}: must be a file (${code === 'ENOENT' ? 'not found' : code})`, { cause });
  }
  throw new LowrankError('ERR_FILE', `${file}: must be a file (found ${found})`);
}
