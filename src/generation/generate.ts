import type { Tokenizer } from '../data/tokenizer.ts';
import { LowrankError } from '../error.ts';
import type { Model } from '../models/model.ts';
import { checkOptions, type Prompt, promptIds } from './request.ts';
import type { Sampling } from './sampling.ts';
import { advance, newSequence, prefill, type Sequence } from './sequence.ts';

/** What to write and when to stop. */
export interface GenerateOptions extends Partial<Sampling> {
  /** At most so many new tokens; 256 unless given. */
  readonly maxTokens?: number;
  /** Texts that end the generation; they are not part of what comes out. */
  readonly stop?: readonly string[];
  /** Tokens that end it; the tokenizer's own unless given. */
  readonly stopIds?: readonly number[];
  /** Ends it behind the token in work. */
  readonly signal?: AbortSignal;
  /** Called with each token as it is chosen. */
  readonly onToken?: (token: GeneratedToken) => void;
}

/** One token of a text that is being written. */
export interface GeneratedToken {
  readonly id: number;
  /** Text that is certain by now: of this token, of several, or of none yet. All of them joined are the whole text. */
  readonly text: string;
}

/** Why a generation ended: a stop token or text, `maxTokens`, no more positions in the model, or the signal. */
export type GenerateEnd = 'stop' | 'length' | 'positions' | 'aborted';

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
export async function* generate(model: Model, tokenizer: Tokenizer | null, prompt: Prompt, options: GenerateOptions = {}): AsyncGenerator<GeneratedToken, GenerateEnd> {
  const run = generateBatch(model, tokenizer, [prompt], options);
  try {
    for (;;) {
      const { value, done } = await run.next();
      if (done === true) return value[0] as GenerateEnd;
      yield { id: value.id, text: value.text };
    }
  } finally {
    await run.return([]);
  }
}

/** What to write for many prompts at a time. */
export interface GenerateBatchOptions extends GenerateOptions {
  /** Texts in work at a time; 16 unless given. A frozen weight is read once for all of them. */
  readonly batchSize?: number;
}

/** A token, and the text it belongs to. */
export interface BatchToken extends GeneratedToken {
  /** Which prompt it continues. */
  readonly prompt: number;
  /** With the last token of a text: why it ended. */
  readonly end: GenerateEnd | null;
}

/**
 * Continues many prompts at a time: each step runs one token of every text in work, so that a frozen weight is read once for all of
 * them, and a prompt takes the place of one that has ended. Prompt i is continued as {@link generate} would with `seed + i`, up to the
 * rounding of sums. `maxTokens` is for each. The return value tells for each prompt why it ended.
 *
 * @throws LowrankError as {@link generate}
 * @example
 * ```ts
 * import { generateBatch, loadModel, loadTokenizer, openDevice } from 'lowrank';
 * await using device = await openDevice('cpu');
 * const model = await loadModel('./SmolLM-135M', { device });
 * const tokenizer = await loadTokenizer('./SmolLM-135M');
 * const texts = ['Once upon a time', 'The sea is'];
 * for await (const { prompt, text } of generateBatch(model, tokenizer, [...texts], { maxTokens: 40 })) texts[prompt] += text;
 * ```
 */
export async function* generateBatch(model: Model, tokenizer: Tokenizer | null, prompts: readonly Prompt[], options: GenerateBatchOptions = {}): AsyncGenerator<BatchToken, GenerateEnd[]> {
  const { batchSize = 16, signal } = options;
  checkOptions(options, tokenizer, prompts);
  if (!Number.isSafeInteger(batchSize) || batchSize < 1) {
    throw new LowrankError('ERR_ARGUMENT', `generate: batchSize must be a whole number from 1 up (found ${String(batchSize)})`);
  }
  const ids = prompts.map((prompt) => promptIds(model, tokenizer, prompt));
  const work: Work = { model, tokenizer, prompts: ids, options, ends: prompts.map(() => 'aborted'), running: new Map() };
  try {
    for (let next = 0; next < prompts.length || work.running.size > 0; ) {
      while (next < prompts.length && work.running.size < batchSize) {
        yield* begin(work, next++);
        if (signal?.aborted === true) return work.ends;
      }
      yield* step(work);
      if (signal?.aborted === true) return work.ends;
    }
    return work.ends;
  } finally {
    for (const { cache } of work.running.values()) cache.dispose();
  }
}

interface Work {
  readonly model: Model;
  readonly tokenizer: Tokenizer | null;
  readonly prompts: readonly (readonly number[])[];
  readonly options: GenerateBatchOptions;
  readonly ends: GenerateEnd[];
  readonly running: Map<number, Sequence>; // by prompt
}

/** Runs a prompt, and gives out the first token behind it. */
async function* begin(work: Work, prompt: number): AsyncGenerator<BatchToken, void> {
  const { model, tokenizer, prompts, options, ends, running } = work;
  const sequence = newSequence(model, tokenizer, prompts[prompt] as readonly number[], { ...options, seed: (options.seed ?? 0) + prompt });
  if (sequence === null) {
    ends[prompt] = 'length';
    return;
  }
  running.set(prompt, sequence);
  const logits = await prefill(model, sequence, options.signal);
  if (logits !== null) yield take(work, prompt, sequence, logits);
}

/** One more token of every text in work. */
async function* step(work: Work): AsyncGenerator<BatchToken, void> {
  const batch = [...work.running];
  if (batch.length === 0) return;
  const rows = await advance(work.model, batch.map(([, sequence]) => sequence));
  for (const [i, [prompt, sequence]] of batch.entries()) {
    yield take(work, prompt, sequence, rows[i] as Float32Array);
    if (work.options.signal?.aborted === true) return;
  }
}

/** The token that a row of logits chooses. A text that ends makes room for another. */
function take({ options, ends, running }: Work, prompt: number, sequence: Sequence, logits: Float32Array): BatchToken {
  const { token, end } = sequence.choose(logits);
  if (end !== null) {
    ends[prompt] = end;
    sequence.cache.dispose();
    running.delete(prompt);
  }
  options.onToken?.(token);
  return { ...token, prompt, end };
}
