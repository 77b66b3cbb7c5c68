import { Tokenizer as HfTokenizer } from '@huggingface/tokenizers';
import { LowrankError } from '../error.ts';
import { streamingDecoder, type StreamingDecoder } from './streaming-decoder.ts';
import { isObject, readTokenizerFiles, type Json, type TokenizerFiles } from './tokenizer-files.ts';

/** Text to token ids and back, as the model's own Hugging Face folder describes it. */
export interface Tokenizer {
  /** One more than the largest id. A model's embedding may be larger: many are padded to a round size. */
  readonly vocabSize: number;
  /** Ids of a text; with the special tokens the model expects around it (`<s>`, say) unless `addSpecialTokens` is false. */
  encode(text: string, options?: { addSpecialTokens?: boolean }): number[];
  /** Text of ids, spaces exactly as the tokens have them. Ids without a token are left out, as Hugging Face does. */
  decode(ids: readonly number[], options?: { skipSpecialTokens?: boolean }): string;
  readonly bosId: number | null;
  readonly eosId: number | null;
  readonly padId: number | null;
  /** Ids that end a generated text: `eosId` and those of generation_config.json (an instruct model often has several). */
  readonly stopIds: readonly number[];
  /** Jinja source of the chat template, if the model has one. */
  readonly chatTemplate: string | null;
  /** Text token by token: `push` returns only what later tokens can't change. Special tokens are left out unless told otherwise. */
  decoder(options?: { skipSpecialTokens?: boolean }): StreamingDecoder;
}

/**
 * The tokenizer of a Hugging Face folder: tokenizer.json, and what tokenizer_config.json, special_tokens_map.json,
 * chat_template.jinja, generation_config.json and config.json add to it.
 *
 * @throws LowrankError ERR_FILE when there is no tokenizer.json, ERR_FORMAT when a file can't be understood.
 * @example
 * ```ts
 * const tokenizer = await loadTokenizer('./SmolLM-135M');
 * tokenizer.decode(tokenizer.encode('Once upon a time')); // 'Once upon a time'
 * ```
 */
export async function loadTokenizer(folder: string): Promise<Tokenizer> {
  const files = await readTokenizerFiles(folder);
  const backend = openBackend(files, folder);
  const idOf = (token: string): number | null => backend.token_to_id(token) ?? null;
  const bosId = specialId('bos', files, idOf);
  const eosId = specialId('eos', files, idOf);
  const padId = specialId('pad', files, idOf);
  const stopIds = [...new Set([eosId, ...idsOf(files.generation['eos_token_id']), ...idsOf(files.model['eos_token_id'])])].filter((id) => id !== null);
  const special = specialIds(files, [bosId, eosId, padId]);

  const decode: Tokenizer['decode'] = (ids, options = {}) => {
    const kept = ids.filter((id) => backend.id_to_token(id) !== undefined && !(options.skipSpecialTokens && special.has(id)));
    // The backend refuses an empty list. Clean-up ("a ," to "a,") is never done: it would break decode(encode(text)) = text.
    return kept.length === 0 ? '' : backend.decode(kept, { clean_up_tokenization_spaces: false });
  };
  return {
    vocabSize: vocabSizeOf(backend),
    encode: (text, options = {}) => backend.encode(text, { add_special_tokens: options.addSpecialTokens ?? true }).ids,
    decode,
    bosId,
    eosId,
    padId,
    stopIds,
    chatTemplate: files.chatTemplate,
    decoder: ({ skipSpecialTokens = true } = {}) => streamingDecoder((ids) => decode(ids, { skipSpecialTokens })),
  };
}

/** The part of `@huggingface/tokenizers` in use; its own declarations lack file extensions, so NodeNext can't follow them. */
interface Backend {
  encode(text: string, options: { add_special_tokens: boolean }): { ids: number[] };
  decode(ids: number[], options: { clean_up_tokenization_spaces: boolean }): string;
  token_to_id(token: string): number | undefined;
  id_to_token(id: number): string | undefined;
  get_vocab(): Map<string, number>;
}

function openBackend(files: TokenizerFiles, folder: string): Backend {
  // Keys that are absent mean the same as null; the backend asks for them all.
  const tokenizer = { normalizer: null, pre_tokenizer: null, post_processor: null, decoder: null, ...files.tokenizer };
  try {
    const backend = new HfTokenizer(tokenizer, files.config) as unknown as Backend;
    if (backend.get_vocab().size === 0) throw new Error('it has no vocabulary');
    return backend;
  } catch (cause) {
    throw new LowrankError('ERR_FORMAT', `${folder}/tokenizer.json: must describe a tokenizer (${(cause as Error).message})`, { cause });
  }
}

function vocabSizeOf(backend: Backend): number {
  let size = 0;
  for (const id of backend.get_vocab().values()) size = Math.max(size, id + 1);
  return size;
}

/** First the names the tokenizer's files give (a text, or an object with `content`), then the ids in the model's configuration. */
function specialId(kind: 'bos' | 'eos' | 'pad', files: TokenizerFiles, idOf: (token: string) => number | null): number | null {
  for (const source of [files.config, files.specialTokens]) {
    const entry = source[`${kind}_token`];
    const token = isObject(entry) ? entry['content'] : entry;
    const id = typeof token === 'string' ? idOf(token) : null;
    if (id !== null) return id;
  }
  return idsOf(files.generation[`${kind}_token_id`])[0] ?? idsOf(files.model[`${kind}_token_id`])[0] ?? null;
}

/** A configuration gives one id, a list of them, or null. */
function idsOf(value: unknown): number[] {
  return (Array.isArray(value) ? value : [value]).filter((id): id is number => Number.isInteger(id) && (id as number) >= 0);
}

function specialIds(files: TokenizerFiles, named: readonly (number | null)[]): Set<number> {
  const added = files.tokenizer['added_tokens'] as readonly Json[];
  const declared = added.filter((token) => token['special'] === true).map((token) => token['id'] as number);
  return new Set([...declared, ...named.filter((id) => id !== null)]);
}
