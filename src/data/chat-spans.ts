import { LowrankError } from '../error.ts';
import type { ChatMessage } from './chat.ts';
import { isSpecial, plainIds } from './continuation.ts';
import type { Tokenizer } from './tokenizer.ts';

/** A stretch of a text, in UTF-16 units. */
export type Span = readonly [start: number, end: number];

type Render = (messages: readonly ChatMessage[], addGenerationPrompt: boolean) => string;

/**
 * Where the assistant's answers lie in a rendered conversation, for templates that don't mark them: from the end of the
 * generation prompt behind the turns before, to what the template puts behind the answer.
 *
 * @param full all messages, rendered without generation prompt
 * @throws LowrankError ERR_DATA when the place of a turn can't be told
 */
export function assistantSpans(tokenizer: Tokenizer, full: string, messages: readonly ChatMessage[], render: Render): Span[] {
  const spans: Span[] = [];
  messages.forEach((message, i) => {
    if (message.role !== 'assistant') return;
    const earlier = messages.slice(0, i);
    const found = startOfTurn(full, earlier, render);
    const start = found === null ? null : Math.max(spans.at(-1)?.[1] ?? 0, found);
    const turn = { message, upToTurn: render(messages.slice(0, i + 1), false), promptIsFixed: ignoresPrompt(earlier, render) };
    const end = start === null ? null : endOfTurn(tokenizer, full, start, turn);
    if (start === null || end === null) throw lostTurn(i);
    spans.push([start, end]);
  });
  return spans;
}

function startOfTurn(full: string, earlier: readonly ChatMessage[], render: Render): number | null {
  // A conversation that the assistant opens has nothing before it, and many templates refuse an empty one.
  if (earlier.length === 0) return 0;
  if (!full.startsWith(render(earlier, false))) return null;
  // Not the whole generation prompt: it may open a thinking block that the full text doesn't have.
  return commonPrefix(full, render(earlier, true));
}

/** Templates that need no generation prompt ("[INST] … [/INST]") or always write one (the first of Llama 3). */
function ignoresPrompt(earlier: readonly ChatMessage[], render: Render): boolean {
  return earlier.length > 0 && render(earlier, false) === render(earlier, true);
}

interface Turn {
  readonly message: ChatMessage;
  /** The conversation up to and with this turn. */
  readonly upToTurn: string;
  readonly promptIsFixed: boolean;
}

/**
 * Mostly the text up to and with this turn begins the full text. Where it doesn't (Qwen3 shows the thinking of the last
 * turn only) or may hold more than the turn (a generation prompt that is always there), the turn is found by its content.
 */
function endOfTurn(tokenizer: Tokenizer, full: string, start: number, { message, upToTurn, promptIsFixed }: Turn): number | null {
  const isPrefix = full.startsWith(upToTurn) && upToTurn.length >= start;
  if (isPrefix && !promptIsFixed) return upToTurn.length;
  const content = typeof message.content === 'string' ? shownContent(full, start, message.content) : null;
  if (content === null) return isPrefix ? upToTurn.length : null;
  const end = full.indexOf(content, start) + content.length;
  const tail = upToTurn.slice(upToTurn.lastIndexOf(content) + content.length);
  const shared = tail.slice(0, commonPrefix(tail, full.slice(end, end + tail.length)));
  if (shared === tail && !promptIsFixed) return end + tail.length;
  const closing = throughFirstSpecial(tokenizer, shared) ?? (shared === tail ? tail.length : null);
  return closing === null ? null : end + closing;
}

/** The content as the text shows it: whole, or without its thinking. */
function shownContent(full: string, start: number, content: string): string | null {
  const forms = [content.trim(), content.split('</think>').at(-1)!.trim()];
  return forms.find((form) => form !== '' && full.indexOf(form, start) >= 0) ?? null;
}

/** How far a text goes up to and with its first special token, which is what ends a turn; null when it has none. */
function throughFirstSpecial(tokenizer: Tokenizer, text: string): number | null {
  const ids = plainIds(tokenizer, text);
  const at = ids.findIndex((id) => isSpecial(tokenizer, id));
  if (at < 0) return null;
  const token = tokenizer.decode([ids[at]!]);
  return text.indexOf(token) + token.length;
}

function commonPrefix(a: string, b: string): number {
  let n = 0;
  while (n < a.length && a[n] === b[n]) n++;
  return n;
}

function lostTurn(turn: number): LowrankError {
  return new LowrankError('ERR_DATA', `chat template: must show where the assistant speaks (turn ${turn} is rendered otherwise when later turns follow; put {% generation %} … {% endgeneration %} around the answer in the template)`);
}
