/** Text out of tokens that come one by one. All that `push` and `flush` return, joined, is the text of all ids together. */
export interface StreamingDecoder {
  /** Takes one id; returns the text that is now certain, often one token's, sometimes ''. */
  push(id: number): string;
  /** Returns what is still held back (an unfinished character shows as U+FFFD) and starts anew. */
  flush(): string;
}

/** What a decoder puts where bytes are not, or not yet, a character. */
const UNFINISHED = '\uFFFD';

/**
 * Decodes a short window again at each token: the last tokens that were given out (as context, since many decoders drop
 * the space at the very start of a text) and the new ones behind them. Text that ends in U+FFFD is held back: a later
 * token may complete the character. UTF-8 finds its own character borders, so cutting the window there changes nothing.
 */
export function streamingDecoder(decode: (ids: readonly number[]) => string): StreamingDecoder {
  let window: number[] = [];
  let given = 0; // how many ids of the window are context, already given out
  let context = ''; // their text

  const fresh = (): string => decode(window).slice(context.length);
  return {
    push(id) {
      window.push(id);
      const text = fresh();
      if (text === '' || text.endsWith(UNFINISHED)) return '';
      window = window.slice(given);
      given = window.length;
      context = decode(window);
      return text;
    },
    flush() {
      const text = fresh();
      [window, given, context] = [[], 0, ''];
      return text;
    },
  };
}
