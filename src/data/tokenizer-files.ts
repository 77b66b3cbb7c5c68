import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { LowrankError } from '../error.ts';

export type Json = Readonly<Record<string, unknown>>;

/** What a Hugging Face folder says about its tokenizer, each file as it is ({} for one that is not there). */
export interface TokenizerFiles {
  readonly tokenizer: Json; // tokenizer.json
  readonly config: Json; // tokenizer_config.json
  readonly specialTokens: Json; // special_tokens_map.json
  readonly generation: Json; // generation_config.json
  readonly model: Json; // config.json
  readonly chatTemplate: string | null;
}

/** Reads them all. @throws LowrankError ERR_FILE when tokenizer.json is missing, ERR_FORMAT for a file that is not a JSON object. */
export async function readTokenizerFiles(folder: string): Promise<TokenizerFiles> {
  const names = ['tokenizer.json', 'tokenizer_config.json', 'special_tokens_map.json', 'generation_config.json', 'config.json'];
  const [tokenizer, config, specialTokens, generation, model] = await Promise.all(names.map((name) => readJson(path.join(folder, name))));
  if (!tokenizer) throw await missingTokenizer(folder);
  return {
    tokenizer: withAddedTokens(tokenizer, config ?? {}),
    config: config ?? {},
    specialTokens: specialTokens ?? {},
    generation: generation ?? {},
    model: model ?? {},
    chatTemplate: (await readText(path.join(folder, 'chat_template.jinja'))) ?? templateOf(config?.['chat_template']),
  };
}

/** Text of a file, or null when there is none. */
async function readText(file: string): Promise<string | null> {
  try {
    return await readFile(file, 'utf8');
  } catch (cause) {
    const code = (cause as NodeJS.ErrnoException).code;
    if (code === 'ENOENT' || code === 'ENOTDIR') return null;
    throw new LowrankError('ERR_FILE', `${file}: must be readable (${String(code)})`, { cause });
  }
}

async function readJson(file: string): Promise<Json | null> {
  const text = await readText(file);
  if (text === null) return null;
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new LowrankError('ERR_FORMAT', `${file}: must be JSON (${(cause as Error).message})`, { cause });
  }
  if (isObject(value)) return value;
  throw new LowrankError('ERR_FORMAT', `${file}: must be a JSON object (found ${Array.isArray(value) ? 'an array' : typeof value})`);
}

export function isObject(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

const CONVERT = `python -c "from transformers import AutoTokenizer as A; A.from_pretrained('.').save_pretrained('.')"`;

/** Older folders hold the vocabulary in other files; one command of transformers writes tokenizer.json beside them. */
async function missingTokenizer(folder: string): Promise<LowrankError> {
  const older = ['vocab.json', 'merges.txt', 'tokenizer.model', 'vocab.txt'];
  const present = await Promise.all(older.map((name) => readText(path.join(folder, name))));
  const found = older.filter((_, i) => present[i] !== null);
  const remedy = found.length > 0 ? `; run this in the folder to make it: ${CONVERT}` : '';
  return new LowrankError('ERR_FILE', `${path.join(folder, 'tokenizer.json')}: is required (found ${found.join(', ') || 'no tokenizer file at all'})${remedy}`);
}

/** Tokens that were added after training may stand in tokenizer_config.json alone. */
function withAddedTokens(tokenizer: Json, config: Json): Json {
  const declared = config['added_tokens_decoder'];
  const added = Array.isArray(tokenizer['added_tokens']) ? (tokenizer['added_tokens'] as Json[]) : [];
  if (!isObject(declared)) return { ...tokenizer, added_tokens: added };
  const known = new Set(added.map((token) => token['id']));
  const missing = Object.entries(declared).filter(([id, token]) => isObject(token) && !known.has(Number(id)));
  return { ...tokenizer, added_tokens: [...added, ...missing.map(([id, token]) => ({ ...(token as Json), id: Number(id) }))] };
}

/** tokenizer_config.json holds one template, or a list of named ones. */
function templateOf(value: unknown): string | null {
  if (typeof value === 'string') return value;
  if (!Array.isArray(value)) return null;
  const named = value.filter(isObject);
  const chosen = named.find((entry) => entry['name'] === 'default') ?? named[0];
  return typeof chosen?.['template'] === 'string' ? chosen['template'] : null;
}
