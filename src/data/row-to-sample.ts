import { LowrankError } from '../error.ts';
import { chatSegments, messagesFault, type ChatMessage } from './chat.ts';
import { continuationIds, isSpecial, openingIds, plainIds } from './continuation.ts';
import { kindOf, RowFault } from './faults.ts';
import { IGNORE, type Sample } from './sample.ts';
import type { Json } from './tokenizer-files.ts';
import type { Tokenizer } from './tokenizer.ts';

export interface RowReading {
  readonly tokenizer: Tokenizer | null;
  /** Ids must be below it; null when it isn't known. */
  readonly vocabSize: number | null;
}

/** All columns that are read; others may stand beside them. */
export const COLUMNS: ReadonlySet<string> = new Set(['text', 'prompt', 'completion', 'messages', 'tools', 'input_ids', 'labels', 'attention_mask']);

const SHAPES = '{"text"}, {"prompt", "completion"}, {"messages"} or {"input_ids", "labels"?, "attention_mask"?}';

/**
 * One row as a sample, whatever its kind; where a row could be read in several ways, the first of input_ids, messages,
 * prompt + completion, text is taken. A column that is null counts as absent.
 *
 * @throws RowFault, told without file and line
 */
export function rowToSample(row: Json, reading: RowReading): Sample {
  const has = (name: string): boolean => row[name] !== undefined && row[name] !== null;
  const sample = ((): Sample => {
    if (has('input_ids')) return tokenizedSample(row);
    if (has('messages')) return chatSample(needTokenizer(reading), row);
    if (has('prompt') && has('completion')) return promptSample(needTokenizer(reading), row);
    if (has('text')) return textSample(needTokenizer(reading), row);
    if (has('prompt')) throw new RowFault('"completion" must stand beside "prompt" (found nothing)');
    if (has('completion')) throw new RowFault('"prompt" must stand beside "completion" (found nothing)');
    throw new RowFault(`must be one of ${SHAPES} (found ${Object.keys(row).slice(0, 8).map((key) => JSON.stringify(key)).join(', ') || 'no column'})`);
  })();
  checkIds(sample, reading.vocabSize);
  return sample;
}

function needTokenizer(reading: RowReading): Tokenizer {
  if (reading.tokenizer) return reading.tokenizer;
  throw new RowFault('must have "input_ids", since there is no tokenizer (found text)');
}

function stringAt(row: Json, name: string): string {
  const value = row[name];
  if (typeof value === 'string') return value;
  throw new RowFault(`"${name}" must be a string (found ${kindOf(value)})`);
}

/** A whole document: all of it is learned, its end too. */
function textSample(tokenizer: Tokenizer, row: Json): Sample {
  const inputIds = Int32Array.from(closed(tokenizer, openingIds(tokenizer, stringAt(row, 'text'))));
  return { inputIds, labels: inputIds };
}

/**
 * Prompt and completion are tokenised apart. Together, the tokenizer could join the end of the one with the start of the
 * other into one token, and the model would train on a prompt other than the one it is given when it generates: there
 * the prompt is tokenised alone, and what the model writes starts with a token of its own.
 */
function promptSample(tokenizer: Tokenizer, row: Json): Sample {
  const prompt = openingIds(tokenizer, stringAt(row, 'prompt'));
  const completion = closed(tokenizer, continuationIds(tokenizer, stringAt(row, 'completion')));
  return joinParts([{ ids: prompt, trained: false }, { ids: completion, trained: true }]);
}

function closed(tokenizer: Tokenizer, ids: number[]): number[] {
  return tokenizer.eosId === null || ids.at(-1) === tokenizer.eosId ? ids : [...ids, tokenizer.eosId];
}

/** Only what the assistant says is learned, with the token that ends its turn where the template marks it so. */
function chatSample(tokenizer: Tokenizer, row: Json): Sample {
  const fault = messagesFault(row['messages']);
  if (fault) throw new RowFault(`"messages" ${fault}${Array.isArray(row['messages']) ? '' : ` (found ${kindOf(row['messages'])})`}`);
  const tools = row['tools'] ?? [];
  if (!Array.isArray(tools)) throw new RowFault(`"tools" must be a list (found ${kindOf(tools)})`);
  const parts: Part[] = [];
  for (const { text, trained } of renderedSegments(tokenizer, row['messages'] as ChatMessage[], tools)) {
    const last = parts.at(-1)?.ids.at(-1);
    // Behind a special token the tokenizer starts afresh, in the middle of a turn's text it goes on.
    const fresh = last === undefined || isSpecial(tokenizer, last);
    parts.push({ ids: fresh ? plainIds(tokenizer, text) : continuationIds(tokenizer, text), trained });
  }
  return joinParts(parts);
}

function renderedSegments(tokenizer: Tokenizer, messages: ChatMessage[], tools: unknown[]): ReturnType<typeof chatSegments> {
  try {
    return chatSegments(tokenizer, messages, tools.length > 0 ? { tools } : {});
  } catch (error) {
    // A template that can't be read is the model's fault, not this row's.
    if (error instanceof LowrankError && error.code === 'ERR_DATA') throw new RowFault(error.message);
    throw error;
  }
}

interface Part {
  readonly ids: readonly number[];
  readonly trained: boolean;
}

function joinParts(parts: readonly Part[]): Sample {
  const inputIds = Int32Array.from(parts.flatMap((part) => part.ids));
  const labels = Int32Array.from(parts.flatMap((part) => (part.trained ? part.ids : part.ids.map(() => IGNORE))));
  return { inputIds, labels };
}

/** Ids as they stand in the row; columns with attention_mask 0 are padding and dropped. */
function tokenizedSample(row: Json): Sample {
  const ids = numbersAt(row, 'input_ids');
  if (ids.length === 0) throw new RowFault('"input_ids" must have at least one id (found none)');
  const labels = row['labels'] === undefined || row['labels'] === null ? ids : numbersAt(row, 'labels', ids.length);
  if (row['attention_mask'] === undefined || row['attention_mask'] === null) return { inputIds: ids, labels };
  const mask = numbersAt(row, 'attention_mask', ids.length);
  const odd = mask.find((value) => value !== 0 && value !== 1);
  if (odd !== undefined) throw new RowFault(`"attention_mask" must hold 0 and 1 (found ${odd})`);
  return withoutPadding(ids, labels, mask);
}

/**
 * Keeps each token's column as its position. A token behind a dropped one keeps no label: what would have predicted it
 * is not there (behind padding on the left that is the first token, which has no label anyway).
 */
function withoutPadding(ids: Int32Array, labels: Int32Array, mask: Int32Array): Sample {
  const kept = Int32Array.from(mask.keys()).filter((t) => mask[t] === 1);
  if (kept.length === 0) throw new RowFault('"attention_mask" must have a 1 (found only 0)');
  const inputIds = kept.map((t) => ids[t]!);
  const shown = kept.map((t) => (t > 0 && mask[t - 1] === 0 ? IGNORE : labels[t]!));
  return kept.at(-1) === kept.length - 1 ? { inputIds, labels: shown } : { inputIds, labels: shown, positions: kept };
}

/** A list of whole numbers; Parquet gives typed arrays and bigints too. */
function numbersAt(row: Json, name: string, length?: number): Int32Array {
  const value = row[name];
  const list: ArrayLike<unknown> | null = Array.isArray(value) ? value : ArrayBuffer.isView(value) && 'length' in value ? (value as unknown as ArrayLike<unknown>) : null;
  if (!list) throw new RowFault(`"${name}" must be a list of whole numbers (found ${kindOf(value)})`);
  if (length !== undefined && list.length !== length) throw new RowFault(`"${name}" must be as long as "input_ids" (found ${list.length} for ${length})`);
  const numbers = new Int32Array(list.length);
  for (let t = 0; t < list.length; t++) {
    const item = list[t];
    const number = Number(item);
    numbers[t] = number;
    // Int32Array keeps only what is whole and fits; the types leave out texts that merely look like numbers.
    if (numbers[t] !== number || (typeof item !== 'number' && typeof item !== 'bigint')) {
      throw new RowFault(`"${name}" must be a list of whole numbers (found ${typeof item === 'bigint' ? item : (JSON.stringify(item) ?? kindOf(item))} at ${t})`);
    }
  }
  return numbers;
}

function checkIds({ inputIds, labels }: Sample, vocabSize: number | null): void {
  const limit = vocabSize ?? Infinity;
  const range = vocabSize === null ? 'at least 0' : `0 … ${limit - 1}, the vocabulary`;
  const badId = inputIds.findIndex((id) => id < 0 || id >= limit);
  if (badId >= 0) throw new RowFault(`token ids must be ${range} (found ${inputIds[badId]} at ${badId})`);
  const badLabel = labels.findIndex((id) => id !== IGNORE && (id < 0 || id >= limit));
  if (badLabel >= 0) throw new RowFault(`labels must be ${IGNORE} or ${range} (found ${labels[badLabel]} at ${badLabel})`);
}
