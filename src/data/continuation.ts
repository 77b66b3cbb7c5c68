import type { Tokenizer } from './tokenizer.ts';

/** What a tokenizer does at the start of a text. */
interface Opening {
  /** Special tokens it puts before a text, `<s>` for instance. */
  readonly before: readonly number[];
  /** Whether it treats the start of a text as the start of a word (SentencePiece's "dummy prefix"). */
  readonly addsSpace: boolean;
}

const openings = new WeakMap<Tokenizer, Opening>();

function openingOf(tokenizer: Tokenizer): Opening {
  const known = openings.get(tokenizer);
  if (known) return known;
  const [one, rest, both] = ['a', '\na', 'a\na'].map((text) => plainIds(tokenizer, text)) as [number[], number[], number[]];
  const whole = tokenizer.encode('a');
  const at = whole.findIndex((_, i) => one.every((id, k) => whole[i + k] === id));
  const opening = { before: whole.slice(0, Math.max(0, at)), addsSpace: !sameIds([...one, ...rest], both) };
  openings.set(tokenizer, opening);
  return opening;
}

/** Ids of a text alone, without special tokens around it. */
export function plainIds(tokenizer: Tokenizer, text: string): number[] {
  return tokenizer.encode(text, { addSpecialTokens: false });
}

/** Whether an id is a special token: one that shows only when special tokens do. */
export function isSpecial(tokenizer: Tokenizer, id: number): boolean {
  return tokenizer.decode([id]) !== '' && tokenizer.decode([id], { skipSpecialTokens: true }) === '';
}

/**
 * Ids of the start of a document: the special tokens the tokenizer puts before a text, then the text. None goes behind it
 * (some tokenizers close a text with `</s>`; here it goes on), and `<s>` is not doubled when the text brings its own.
 */
export function openingIds(tokenizer: Tokenizer, text: string): number[] {
  const { before } = openingOf(tokenizer);
  const ids = plainIds(tokenizer, text);
  const doubled = before.length > 0 && ids[0] === tokenizer.bosId && before.at(-1) === tokenizer.bosId;
  return doubled ? [...before.slice(0, -1), ...ids] : [...before, ...ids];
}

/**
 * Ids of a text that goes on where another one ended. Most tokenizers have no memory across such a border; those with a
 * dummy prefix would put a space there that is not in the text, so a character is set before it and its ids are taken off.
 */
export function continuationIds(tokenizer: Tokenizer, text: string): number[] {
  if (text === '') return [];
  if (!openingOf(tokenizer).addsSpace) return plainIds(tokenizer, text);
  const anchor = plainIds(tokenizer, /^\s/.test(text) ? 'a' : '\n');
  const ids = plainIds(tokenizer, (/^\s/.test(text) ? 'a' : '\n') + text);
  return sameIds(ids.slice(0, anchor.length), anchor) ? ids.slice(anchor.length) : plainIds(tokenizer, text);
}

function sameIds(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every((id, i) => id === b[i]);
}
