import type { Tokenizer } from '../data/tokenizer.ts';
import type { Cache, Model } from '../models/model.ts';
import { scope } from '../scope.ts';
import type { GeneratedToken, GenerateEnd, GenerateOptions } from './generate.ts';
import { makeSampler, type Sampler, type Sampling } from './sampling.ts';
import { tokenWriter, type TokenWriter } from './token-writer.ts';

/** Tokens of a prompt that run at a time: enough for full speed, and no more memory than a training batch. */
const prefillTokens = 512;

/** One text in the making. */
export interface Sequence {
  readonly ids: readonly number[]; // of the prompt
  readonly cache: Cache;
  /** What the model runs next. */
  last: number;
  /** Takes the logits [V] behind what is there. */
  choose(logits: Float32Array): { readonly token: GeneratedToken; readonly end: GenerateEnd | null };
}

interface Ways {
  readonly sample: Sampler;
  readonly write: TokenWriter;
  readonly most: number;
  readonly full: GenerateEnd; // why it ends at `most` tokens
}

/** What is to be written behind one prompt; nothing has run yet. Null: no token at all. */
export function newSequence(model: Model, tokenizer: Tokenizer | null, ids: readonly number[], options: GenerateOptions): Sequence | null {
  const { maxTokens = 256 } = options;
  const most = Math.min(maxTokens, model.facts.maxPositions - ids.length + 1); // the last token needs no place in the cache
  const sample = makeSampler({ temperature: 0, topK: 0, topP: 1, seed: 0, ...defined(options) });
  const write = tokenWriter(tokenizer, ids, options);
  if (most === 0) return null;
  return makeSequence(ids, model.newCache(ids.length + most - 1), { sample, write, most, full: most === maxTokens ? 'length' : 'positions' });
}

function makeSequence(ids: readonly number[], cache: Cache, { sample, write, most, full }: Ways): Sequence {
  let count = 0;
  return {
    ids,
    cache,
    last: -1,
    choose(logits) {
      count++;
      const { token, stopped } = write(sample(logits), count === most);
      this.last = token.id;
      return { token, end: stopped ? 'stop' : count === most ? full : null };
    },
  };
}

/** Leaves out keys that are there and undefined: they mean the default too. */
function defined(options: GenerateOptions): Partial<Sampling> {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as Partial<Sampling>;
}

/** Runs the prompt; logits [V] behind it, or null when the signal came before. */
export async function prefill(model: Model, { ids, cache }: Sequence, signal: AbortSignal | undefined): Promise<Float32Array | null> {
  const last = ids.length - 1 - ((ids.length - 1) % prefillTokens); // where the last piece begins
  for (let start = 0; start < last; start += prefillTokens) {
    if (signal?.aborted === true) return null;
    scope(() => void model.decode(ids.slice(start, start + prefillTokens), cache, ids.length));
    await model.device.fence();
  }
  if (signal?.aborted === true) return null;
  const logits = scope(() => {
    const hidden = model.decode(ids.slice(last), cache);
    return model.logits(hidden.view([1, hidden.cols], hidden.size - hidden.cols));
  });
  try {
    return await logits.data();
  } finally {
    logits.dispose();
  }
}

/** Runs the last token of each; their logits [V]. */
export async function advance(model: Model, sequences: readonly Sequence[]): Promise<Float32Array[]> {
  const logits = scope(() => model.logits(model.decodeEach(sequences.map(({ last }) => last), sequences.map(({ cache }) => cache))));
  try {
    const all = await logits.data();
    return sequences.map((_, i) => all.subarray(i * logits.cols, (i + 1) * logits.cols));
  } finally {
    logits.dispose();
  }
}
