import { createReadStream } from 'node:fs';
import { LowrankError } from '../error.ts';
import { continuationIds, openingIds } from './continuation.ts';
import type { Sample } from './sample.ts';
import type { Tokenizer } from './tokenizer.ts';

/** A line of text files between documents (GPT-2's name for it, whatever the model calls its own end token). */
const SEPARATOR = '<|endoftext|>';

/** Characters tokenised at once: long enough that cuts are rare, short enough for tokenizers that take n log n steps. */
const PIECE = 1 << 16;

/** Characters held while looking for a place to cut; behind them even a line that never ends is cut. */
const MOST_HELD = 16 * PIECE;

/**
 * A plain text file as contiguous blocks of `block` tokens: the usual way to train on a corpus, every token is used.
 * The file is one document, or several with `<|endoftext|>` between them; a document starts with the tokens the model
 * puts before a text and ends with its end token. The last block is what is left.
 */
export async function* textBlocks(file: string, tokenizer: Tokenizer, block: number): AsyncGenerator<Sample> {
  let pending: number[] = [];
  for await (const piece of readPieces(file)) {
    const ids = piece.opens ? openingIds(tokenizer, piece.text) : continuationIds(tokenizer, piece.text);
    for (const id of ids) pending.push(id);
    if (piece.closes && tokenizer.eosId !== null && pending.at(-1) !== tokenizer.eosId) pending.push(tokenizer.eosId);
    let at = 0;
    for (; pending.length - at >= block; at += block) yield wholeSample(pending.slice(at, at + block));
    pending = pending.slice(at);
  }
  if (pending.length > 1) yield wholeSample(pending);
}

function wholeSample(ids: readonly number[]): Sample {
  const inputIds = Int32Array.from(ids);
  return { inputIds, labels: inputIds };
}

interface Piece {
  readonly text: string;
  readonly opens: boolean; // the first piece of a document
  readonly closes: boolean; // the last
}

/** The text in pieces that can be tokenised one by one with the same result. Blank space around documents is dropped. */
async function* readPieces(file: string): AsyncGenerator<Piece> {
  let text = '';
  let opens = true;
  const cut = (end: number, closes: boolean): Piece | null => {
    const raw = text.slice(0, end);
    const begun = opens ? raw.replace(/^[\r\n]+/, '') : raw;
    const piece = { text: closes ? begun.trimEnd() : begun, opens, closes };
    text = text.slice(end);
    if (opens && piece.text === '') return null;
    opens = closes;
    return piece;
  };
  for await (const chunk of readText(file)) {
    text += chunk;
    for (let at = text.indexOf(SEPARATOR); at >= 0; at = text.indexOf(SEPARATOR)) {
      const piece = cut(at, true);
      text = text.slice(SEPARATOR.length);
      opens = true;
      if (piece) yield piece;
    }
    const end = text.length > PIECE ? safeCut(text, text.length - SEPARATOR.length) : 0;
    const piece = end > 0 ? cut(end, false) : null;
    if (piece) yield piece;
  }
  const last = cut(text.length, true);
  if (last) yield last;
}

/**
 * The last place, before `limit`, between a letter and white space: no tokenizer in use lets a token reach over it,
 * while one over punctuation and a newline is common (".\n" in Llama 3). 0 when there is none.
 */
function safeCut(text: string, limit: number): number {
  const lowest = Math.max(1, limit - PIECE);
  for (let at = limit; at >= lowest; at--) if (/\s/.test(text[at]!) && /\p{L}/u.test(text[at - 1]!)) return at;
  // Text without such a place for a whole piece (no letters at all, say) is cut at a line end; that may cost one merge.
  const line = text.lastIndexOf('\n', limit);
  if (line > 0 || text.length < MOST_HELD) return Math.max(line, 0);
  return /[\uDC00-\uDFFF]/.test(text[limit]!) ? limit - 1 : limit;
}

/** The file's text, CRLF read as LF. */
async function* readText(file: string): AsyncGenerator<string> {
  const decoder = new TextDecoder('utf-8', { fatal: true });
  let held = ''; // a CR whose LF may come with the next chunk
  const decode = (bytes: Buffer | null): string => {
    try {
      return bytes ? decoder.decode(bytes, { stream: true }) : decoder.decode();
    } catch (cause) {
      throw new LowrankError('ERR_DATA', `${file}: must be UTF-8 text (found other bytes)`, { cause });
    }
  };
  for await (const chunk of createReadStream(file, { highWaterMark: PIECE }) as AsyncIterable<Buffer>) {
    const text = held + decode(chunk);
    held = text.endsWith('\r') ? '\r' : '';
    yield text.slice(0, text.length - held.length).replaceAll('\r\n', '\n');
  }
  yield held + decode(null);
}
