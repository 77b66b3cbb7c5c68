import type { StreamingDecoder } from '../data/streaming-decoder.ts';
import type { Tokenizer } from '../data/tokenizer.ts';
import { LowrankError, throwFaults } from '../error.ts';
import type { Cache, Model } from '../models/model.ts';
import { makeSampler, type Sampling } from './sampling.ts';
import { scope } from '../scope.ts';
import { stopFilter, type StopFilter } from './stop-filter.ts';

export interface GenerateOptions extends Partial<Sampling> {
  /** At most so many new tokens; 256 unless given. */
  readonly maxTokens?: number;
  /** Texts that end the generation; they are not part of what comes out. */
  readonly stop?: readonly string[];
  /** Tokens that end it; the tokenizer's own unless given. */
  readonly stopIds?: readonly number[];
  /** Ends it behind the token in work. */
  readonly signal?: AbortSignal;
  readonly onToken?: (token: GeneratedToken) => void;
}

export interface GeneratedToken {
  readonly id: number;
  /** Text that is certain by now: of this token, of several, or of none yet. All of them joined are the whole text. */
  readonly text: string;
}

/** Why a generation ended: a stop token or text, `maxTokens`, no more positions in the model, or the signal. */
export type GenerateEnd = 'stop' | 'length' | 'positions' | 'aborted';

/** Tokens of a prompt that run at a time: enough for full speed, and no more memory than a training batch. */
const prefillTokens = 512;

/** Ids of the prompt that the decoder sees, since how a token reads may depend on what is before it. */
const contextIds = 16;

/**
 * Continues a prompt token by token; a text is encoded with the special tokens that the model expects. Greedy unless
 * `temperature` is above 0. A token of `stopIds` comes out too, as the last, with no text of its own. The generator's return
 * value is a {@link GenerateEnd}. Memory is given back when it ends, also by a `break` in the loop that reads it.
 *
 * @throws LowrankError ERR_ARGUMENT for options out of range or a prompt that is empty or fills the model, ERR_RANGE for a token
 * id outside the vocabulary, ERR_NONFINITE
 * @example
 * ```ts
 * import { generate, loadModel, loadTokenizer, openDevice } from 'lowrank';
 * await using device = await openDevice('cpu');
 * const model = await loadModel('./SmolLM-135M', { device });
 * const tokenizer = await loadTokenizer('./SmolLM-135M');
 * for await (const { text } of generate(model, tokenizer, 'Once upon a time', { maxTokens: 40 })) process.stdout.write(text);
 * ```
 */
export async function* generate(model: Model, tokenizer: Tokenizer | null, prompt: string | readonly number[], options: GenerateOptions = {}): AsyncGenerator<GeneratedToken, GenerateEnd> {
  const { maxTokens = 256, signal, onToken } = options;
  checkOptions(options, tokenizer, prompt);
  const ids = promptIds(model, tokenizer, prompt);
  const room = model.facts.maxPositions - ids.length;
  const most = Math.min(maxTokens, room + 1); // the last token needs no place in the cache
  const writer = tokenWriter(tokenizer, ids, options);
  const sample = makeSampler({ temperature: 0, topK: 0, topP: 1, seed: 0, ...defined(options) });
  if (most === 0) return 'length';
  const cache = model.newCache(ids.length + most - 1);
  try {
    let logits = await prefill(model, ids, cache, signal);
    for (let count = 1; logits !== null && signal?.aborted !== true; count++) {
      const { token, stopped } = writer(sample(logits), count === most);
      onToken?.(token);
      yield token;
      if (stopped) return 'stop';
      if (count === most) return most === maxTokens ? 'length' : 'positions';
      logits = await next(model, [token.id], cache);
    }
    return 'aborted';
  } finally {
    cache.dispose();
  }
}

function checkOptions({ maxTokens = 256, temperature = 0, topK = 0, topP = 1, seed = 0, stop = [] }: GenerateOptions, tokenizer: Tokenizer | null, prompt: string | readonly number[]): void {
  const faults: string[] = [];
  const need = (holds: boolean, what: string, found: unknown): void => {
    if (!holds) faults.push(`${what} (found ${String(found)})`);
  };
  need(Number.isSafeInteger(maxTokens) && maxTokens >= 0, 'maxTokens must be a whole number from 0 up', maxTokens);
  need(Number.isFinite(temperature) && temperature >= 0, 'temperature must be 0 or more', temperature);
  need(Number.isSafeInteger(topK) && topK >= 0, 'topK must be a whole number from 0 up', topK);
  need(topP > 0 && topP <= 1, 'topP must be above 0 and at most 1', topP);
  need(Number.isSafeInteger(seed) && seed >= 0, 'seed must be a whole number from 0 to 2^53 − 1', seed);
  need(!stop.includes(''), 'stop must hold no empty text', '""');
  need(tokenizer !== null || typeof prompt !== 'string', 'a prompt must be token ids where there is no tokenizer', 'a text');
  need(tokenizer !== null || stop.length === 0, 'stop needs a tokenizer; without one there are stopIds', 'none');
  throwFaults('ERR_ARGUMENT', 'generate', faults);
}

function promptIds(model: Model, tokenizer: Tokenizer | null, prompt: string | readonly number[]): readonly number[] {
  const encoded = typeof prompt === 'string' ? (tokenizer?.encode(prompt) ?? []) : [...prompt];
  // Nothing to continue: a model that has a token for the beginning of a text starts there.
  const start = typeof prompt === 'string' ? (tokenizer?.bosId ?? null) : null;
  const ids = encoded.length === 0 && start !== null ? [start] : encoded;
  const { maxPositions } = model.facts;
  if (ids.length === 0 || ids.length > maxPositions) {
    throw new LowrankError('ERR_ARGUMENT', `generate: a prompt must have 1 to ${maxPositions} tokens, the positions of this model (found ${ids.length})`);
  }
  return ids;
}

/** Leaves out keys that are there and undefined: they mean the default too. */
function defined(options: GenerateOptions): Partial<Sampling> {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as Partial<Sampling>;
}

/** Logits behind the prompt, or null when the signal came before. */
async function prefill(model: Model, ids: readonly number[], cache: Cache, signal: AbortSignal | undefined): Promise<Float32Array | null> {
  const last = ids.length - 1 - ((ids.length - 1) % prefillTokens); // where the last piece begins
  for (let start = 0; start < last; start += prefillTokens) {
    if (signal?.aborted === true) return null;
    scope(() => void model.decode(ids.slice(start, start + prefillTokens), cache, ids.length));
    await model.device.fence();
  }
  return signal?.aborted === true ? null : next(model, ids.slice(last), cache);
}

/** Runs these tokens; logits [V] behind the last. */
async function next(model: Model, ids: readonly number[], cache: Cache): Promise<Float32Array> {
  const logits = scope(() => {
    const hidden = model.decode(ids, cache);
    return model.logits(hidden.view([1, hidden.cols], (ids.length - 1) * hidden.cols));
  });
  try {
    return await logits.data();
  } finally {
    logits.dispose();
  }
}

/** Turns ids into tokens with text; `last` lets go of text that was held back. */
type TokenWriter = (id: number, last: boolean) => { readonly token: GeneratedToken; readonly stopped: boolean };

function tokenWriter(tokenizer: Tokenizer | null, prompt: readonly number[], { stop = [], stopIds }: GenerateOptions): TokenWriter {
  const ends = new Set(stopIds ?? tokenizer?.stopIds ?? []);
  const decoder = tokenizer?.decoder() ?? null;
  for (const id of prompt.slice(-contextIds)) decoder?.push(id);
  const filter = stopFilter(stop);
  return (id, last) => {
    const ended = ends.has(id);
    const { text, stopped } = textOf({ id, decoder, filter, ended, last: last || ended });
    return { token: { id, text }, stopped: ended || stopped };
  };
}

interface Piece {
  readonly id: number;
  readonly decoder: StreamingDecoder | null;
  readonly filter: StopFilter;
  readonly ended: boolean;
  readonly last: boolean;
}

function textOf({ id, decoder, filter, ended, last }: Piece): { text: string; stopped: boolean } {
  if (decoder === null) return { text: '', stopped: false };
  const fresh = (ended ? '' : decoder.push(id)) + (last ? decoder.flush() : '');
  const { text, stopped } = filter.push(fresh);
  return { text: last && !stopped ? text + filter.flush() : text, stopped };
}
