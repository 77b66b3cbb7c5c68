import type { StreamingDecoder } from '../data/streaming-decoder.ts';
import type { Tokenizer } from '../data/tokenizer.ts';
import type { GeneratedToken, GenerateOptions } from './generate.ts';
import { stopFilter, type StopFilter } from './stop-filter.ts';

/** Turns ids into tokens with text; `last` lets go of text that was held back. */
export type TokenWriter = (id: number, last: boolean) => { readonly token: GeneratedToken; readonly stopped: boolean };

/** Ids of the prompt that the decoder sees, since how a token reads may depend on what is before it. */
const contextIds = 16;

export function tokenWriter(tokenizer: Tokenizer | null, prompt: readonly number[], { stop = [], stopIds }: GenerateOptions): TokenWriter {
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
