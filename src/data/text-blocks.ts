import { createReadStream } from 'node:fs';
import { LowrankError } from '../error.ts';
import { continuationIds, openingIds } from './continuation.ts';
import type { Sample } from './sample.ts';
import type { Tokenizer } from './tokenizer.ts';

/** A line of text files between documents (GPT-2's name for it, whatever the model calls its own end token). */
const SEPARATOR = '<|endoftext|>';

/**
 * Characters tokenised at once. Tokenizers that don't split a text into words themselves take n log n steps: 262,144
 * characters of Shakespeare take the 4096-token model of stories3M 3.2 s in one piece, 0.9 s in pieces of this size.
 */
const PIECE = 1 << 12;

/** Characters held while looking for a place to cut; behind them even a line that never ends is cut. */
const MOST_HELD = 64 * PIECE;

/**
 * A plain text file as contiguous blocks of `block` tokens: the usual way to train on a corpus, every token is used.
 * The file is one document, or several with `<|endoftext|>` between them; a document starts with the tokens the model
 * puts before a text and ends with its end token. The last block is what is left, but for a single token, which could predict nothing.
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
    for (;;) {
      const at = text.indexOf(SEPARATOR);
      const limit = at >= 0 ? at : text.length - SEPARATOR.length; // a separator may be half there
      const end = limit > PIECE ? safeCut(text, limit) : 0;
      if (end === 0 && at < 0) break;
      const piece = end > 0 ? cut(end, false) : cut(at, true);
      if (end === 0) {
        text = text.slice(SEPARATOR.length);
        opens = true;
      }
      if (piece) yield piece;
    }
  }
  const last = cut(text.length, true);
  if (last) yield last;
}

/**
 * The end of a piece: the last place in the first PIECE characters between a letter and white space. No tokenizer in use
 * lets a token reach over it, while one over punctuation and a newline is common (".\n" in Llama 3). Text without such a
 * place (tables, Chinese) is cut at a line end, which may cost one merge. 0: no end below `limit`, more text is needed.
 */
function safeCut(text: string, limit: number): number {
  for (let at = PIECE; at > 0; at--) if (isWordEnd(text, at)) return at;
  const line = text.lastIndexOf('\n', PIECE);
  if (line > 0) return line;
  for (let at = PIECE + 1; at <= limit; at++) if (text[at] === '\n' || isWordEnd(text, at)) return at;
  if (limit < MOST_HELD) return 0;
  return /[\uDC00-\uDFFF]/.test(text[limit]!) ? limit - 1 : limit;
}

function isWordEnd(text: string, at: number): boolean {
  const next = text[at];
  return (next === ' ' || next === '\n') && /\p{L}/u.test(text[at - 1]!);
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
  for await (const chunk of createReadStream(file, { highWaterMark: 1 << 16 }) as AsyncIterable<Buffer>) {
    const text = held + decode(chunk);
    held = text.endsWith('\r') ? '\r' : '';
    yield text.slice(0, text.length - held.length).replaceAll('\r\n', '\n');
  }
  yield held + decode(null);
}
