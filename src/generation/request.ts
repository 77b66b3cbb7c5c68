import type { Tokenizer } from '../data/tokenizer.ts';
import { LowrankError, throwFaults } from '../error.ts';
import type { Model } from '../models/model.ts';
import type { GenerateOptions } from './generate.ts';

/** A text, which is encoded with the special tokens that the model expects, or token ids. */
export type Prompt = string | readonly number[];

/** @throws LowrankError ERR_ARGUMENT with every fault */
export function checkOptions({ maxTokens = 256, temperature = 0, topK = 0, topP = 1, seed = 0, stop = [] }: GenerateOptions, tokenizer: Tokenizer | null, prompts: readonly Prompt[]): void {
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
  need(tokenizer !== null || prompts.every((prompt) => typeof prompt !== 'string'), 'a prompt must be token ids where there is no tokenizer', 'a text');
  need(tokenizer !== null || stop.length === 0, 'stop needs a tokenizer; without one there are stopIds', 'none');
  throwFaults('ERR_ARGUMENT', 'generate', faults);
}

/** @throws LowrankError ERR_ARGUMENT for a prompt that is empty or longer than the model's positions */
export function promptIds(model: Model, tokenizer: Tokenizer | null, prompt: Prompt): readonly number[] {
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
