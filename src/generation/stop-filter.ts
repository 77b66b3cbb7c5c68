/** Ends a text that comes in pieces where one of several stop texts begins. */
export interface StopFilter {
  /** Takes a piece; gives what can't be part of a stop text any more, and whether one was found. */
  push(piece: string): { readonly text: string; readonly stopped: boolean };
  /** What was held back. */
  flush(): string;
}

/**
 * A stop text may straddle pieces: an end of the text so far that could be its beginning is held back.
 *
 * @example
 * ```ts
 * const filter = stopFilter(['\n\n']);
 * filter.push('one\n'); // { text: 'one', stopped: false }
 * filter.push('\ntwo'); // { text: '', stopped: true }
 * ```
 */
export function stopFilter(stops: readonly string[]): StopFilter {
  let held = '';
  return {
    push(piece) {
      const text = held + piece;
      const found = Math.min(...stops.map((stop) => text.indexOf(stop)).filter((at) => at >= 0));
      const stopped = found !== Infinity;
      const certain = stopped ? found : text.length - longestBeginning(text, stops);
      held = stopped ? '' : text.slice(certain);
      return { text: text.slice(0, certain), stopped };
    },
    flush() {
      const text = held;
      held = '';
      return text;
    },
  };
}

/** Length of the longest end of `text` that a stop text begins with. */
function longestBeginning(text: string, stops: readonly string[]): number {
  const most = Math.min(text.length, Math.max(0, ...stops.map((stop) => stop.length - 1)));
  for (let length = most; length > 0; length--) {
    const end = text.slice(-length);
    if (stops.some((stop) => stop.startsWith(end))) return length;
  }
  return 0;
}
