import { Template } from '@huggingface/jinja';
import { LowrankError } from '../error.ts';
import { assistantSpans, type Span } from './chat-spans.ts';
import { isObject } from './tokenizer-files.ts';
import type { Tokenizer } from './tokenizer.ts';

/** One turn. Templates read more keys than these (`tool_calls`, `name`, `reasoning_content`); all are handed on. */
export interface ChatMessage {
  readonly role: string;
  readonly content?: unknown;
  readonly [key: string]: unknown;
}

/** What a chat template is given besides the messages. */
export interface RenderChatOptions {
  /** Ends the text where the assistant's answer begins. */
  readonly addGenerationPrompt?: boolean;
  /** Tool descriptions (JSON schema objects) for templates that list them. */
  readonly tools?: readonly unknown[];
}

/**
 * Renders a conversation with the model's own chat template. The text holds its special tokens already: encode it with
 * `addSpecialTokens: false`.
 *
 * @throws LowrankError ERR_UNSUPPORTED when the model has no chat template, ERR_DATA when the template refuses the messages.
 * @example
 * ```ts
 * const text = renderChat(tokenizer, [{ role: 'user', content: 'Hello' }], { addGenerationPrompt: true });
 * const ids = tokenizer.encode(text, { addSpecialTokens: false });
 * ```
 */
export function renderChat(tokenizer: Tokenizer, messages: readonly ChatMessage[], options: RenderChatOptions = {}): string {
  return templatesOf(tokenizer).plain(messages, options);
}

/** A stretch of a rendered conversation: trained (the assistant speaks) or only read. */
export interface ChatSegment {
  readonly text: string;
  readonly trained: boolean;
}

/**
 * Renders a conversation and says which stretches the assistant speaks: what lies between the template's
 * `{% generation %}` tags, or without such tags what each assistant turn adds to the text before it.
 *
 * @throws as `renderChat`, and ERR_DATA when the template renders a turn so that its place can't be told.
 */
export function chatSegments(tokenizer: Tokenizer, messages: readonly ChatMessage[], options: RenderChatOptions = {}): ChatSegment[] {
  const { plain, marked } = templatesOf(tokenizer);
  if (marked) return segmentsByMarks(marked(withoutMarks(messages), options));
  const full = plain(messages, { ...options, addGenerationPrompt: false });
  const render = (turns: readonly ChatMessage[], addGenerationPrompt: boolean): string => plain(turns, { ...options, addGenerationPrompt });
  return segmentsBySpans(full, assistantSpans(tokenizer, full, messages, render));
}

type Render = (messages: readonly ChatMessage[], options: RenderChatOptions) => string;
/** `marked` renders with OPEN and CLOSE around what the assistant speaks; null when the template has no tags for it. */
interface Templates {
  readonly plain: Render;
  readonly marked: Render | null;
}

const templates = new WeakMap<Tokenizer, Templates>();

function templatesOf(tokenizer: Tokenizer): Templates {
  const known = templates.get(tokenizer);
  if (known) return known;
  const source = tokenizer.chatTemplate;
  if (source === null) {
    throw new LowrankError('ERR_UNSUPPORTED', 'chat: "messages" need a chat template (the model has none in tokenizer_config.json or chat_template.jinja; use "prompt" and "completion", or add one)');
  }
  const tagged = GENERATION.test(source);
  const made = { plain: renderer(tokenizer, withMarks(source, '', '')), marked: tagged ? renderer(tokenizer, withMarks(source, OPEN, CLOSE)) : null };
  templates.set(tokenizer, made);
  return made;
}

function renderer(tokenizer: Tokenizer, source: string): Render {
  let template: Template;
  try {
    template = new Template(source);
  } catch (cause) {
    throw new LowrankError('ERR_FORMAT', `chat template: must be valid Jinja (${(cause as Error).message})`, { cause });
  }
  const named = { bos_token: tokenText(tokenizer, tokenizer.bosId), eos_token: tokenText(tokenizer, tokenizer.eosId), pad_token: tokenText(tokenizer, tokenizer.padId) };
  return (messages, { addGenerationPrompt = false, tools }) => {
    try {
      return String(template.render({ ...named, messages, tools: tools ?? null, documents: null, add_generation_prompt: addGenerationPrompt }));
    } catch (cause) {
      throw new LowrankError('ERR_DATA', `chat template: must accept the messages (it says: ${(cause as Error).message})`, { cause });
    }
  };
}

function tokenText(tokenizer: Tokenizer, id: number | null): string {
  return id === null ? '' : tokenizer.decode([id]);
}

const GENERATION = /{%-?\s*generation\s*-?%}/;
// Private-use characters: no tokenizer or text gives them a meaning.
const OPEN = '\uF5A0';
const CLOSE = '\uF5A1';

/**
 * Puts a mark for each tag, between a pair of block tags, so that Jinja trims the white space around it as around the
 * tag. Text without marks goes this way too: the engine knows no such tag and would drop it before it trims, which
 * loses the newline of "}}\n{% generation %}\n{{-" (Jinja2, and so transformers, keeps it).
 */
function withMarks(source: string, open: string, close: string): string {
  return source.replace(/{%(-?)\s*(end)?generation\s*(-?)%}/g, (_, left: string, end: string | undefined, right: string) => `{%${left} if true %}${end ? close : open}{% endif ${right}%}`);
}

/** The same messages; refused in the odd case that they hold a mark themselves. */
function withoutMarks(messages: readonly ChatMessage[]): readonly ChatMessage[] {
  const found = /[\uF5A0\uF5A1]/.exec(JSON.stringify(messages));
  if (!found) return messages;
  const code = found[0].charCodeAt(0).toString(16).toUpperCase();
  throw new LowrankError('ERR_DATA', `chat template: messages must not hold U+F5A0 or U+F5A1, which mark the answers (found U+${code})`);
}

function segmentsByMarks(text: string): ChatSegment[] {
  const parts = text.split(new RegExp(`[${OPEN}${CLOSE}]`));
  return parts.map((part, i) => ({ text: part, trained: i % 2 === 1 })).filter((part) => part.text !== '');
}

function segmentsBySpans(full: string, spans: readonly Span[]): ChatSegment[] {
  const segments: ChatSegment[] = [];
  let at = 0;
  for (const [start, end] of spans) {
    segments.push({ text: full.slice(at, start), trained: false }, { text: full.slice(start, end), trained: true });
    at = end;
  }
  segments.push({ text: full.slice(at), trained: false });
  return segments.filter((part) => part.text !== '');
}

/** Why a value is no conversation, or null when it is one. */
export function messagesFault(value: unknown): string | null {
  if (!Array.isArray(value) || value.length === 0) return 'must be a list of at least one {role, content}';
  const wrong = value.findIndex((turn) => !isObject(turn) || typeof turn['role'] !== 'string');
  if (wrong >= 0) return `must be a list of {role, content} (turn ${wrong} has no role)`;
  return value.some((turn: ChatMessage) => turn.role === 'assistant') ? null : 'must have a turn of role "assistant" to learn from';
}
