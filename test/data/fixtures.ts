import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll } from 'vitest';
import { loadTokenizer, type Tokenizer } from '../../src/data/tokenizer.ts';

const root = mkdtempSync(path.join(tmpdir(), 'lowrank-data-'));
afterAll(() => rmSync(root, { recursive: true, force: true }));

/** Writes a file into this test file's temporary folder and gives its path. */
export function written(name: string, content: string | Uint8Array): string {
  const file = path.join(root, name);
  mkdirSync(path.dirname(file), { recursive: true });
  writeFileSync(file, content);
  return file;
}

/** Writes JSON lines. */
export function jsonl(name: string, rows: readonly unknown[]): string {
  return written(name, rows.map((row) => JSON.stringify(row)).join('\n') + '\n');
}

/** GPT-2's table: a printable character for each byte. */
function byteCharacters(): string[] {
  const plain = (byte: number): boolean => (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
  let next = 256;
  return Array.from({ length: 256 }, (_, byte) => String.fromCharCode(plain(byte) ? byte : next++));
}

const SPECIALS = ['<s>', '</s>', '<|im_start|>', '<|im_end|>'];
const special = (content: string, id: number): object => ({ id, content, special: true, single_word: false, lstrip: false, rstrip: false, normalized: false });

const startWith = (token: string, id: number): object => ({
  type: 'TemplateProcessing',
  single: [{ SpecialToken: { id: token, type_id: 0 } }, { Sequence: { id: 'A', type_id: 0 } }],
  pair: [{ Sequence: { id: 'A', type_id: 0 } }, { Sequence: { id: 'B', type_id: 1 } }],
  special_tokens: { [token]: { id: token, ids: [id], tokens: [token] } },
});

/** A byte-level BPE tokenizer of 4 special tokens, 256 bytes and a few merges ("cat", "Ġcat", "Ċ"…), as GPT-2 and Llama 3 have. */
export const byteLevelTokenizer = {
  version: '1.0',
  added_tokens: SPECIALS.map(special),
  normalizer: null,
  pre_tokenizer: { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true },
  post_processor: startWith('<s>', 0),
  decoder: { type: 'ByteLevel', add_prefix_space: true, trim_offsets: true },
  model: bpe([...SPECIALS, ...byteCharacters()], ['c a', 'ca t', 'Ġ cat', 'Ġ s', 'Ġs a', 'Ġsa t', 't h', 'th e', ': a', 'Ċ Ċ'], {}),
};

const byteTokens = Array.from({ length: 256 }, (_, byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`);
const letters = [...'▁abcdefghijklmnopqrstuvwxyz:.'];

/** A SentencePiece-like tokenizer with dummy prefix and byte fallback, as Llama 2 and the stories models have. */
export const dummyPrefixTokenizer = {
  version: '1.0',
  added_tokens: SPECIALS.map(special),
  normalizer: { type: 'Sequence', normalizers: [{ type: 'Prepend', prepend: '▁' }, { type: 'Replace', pattern: { String: ' ' }, content: '▁' }] },
  pre_tokenizer: null,
  post_processor: startWith('<s>', 0),
  decoder: { type: 'Sequence', decoders: [{ type: 'Replace', pattern: { String: '▁' }, content: ' ' }, { type: 'ByteFallback' }, { type: 'Fuse' }, { type: 'Strip', content: ' ', start: 1, stop: 0 }] },
  model: bpe([...SPECIALS, ...byteTokens, ...letters], ['c a', 'ca t', '▁ cat', '▁ s', '▁s a', '▁sa t'], { byte_fallback: true, unk_token: '<s>' }),
};

function bpe(symbols: readonly string[], merges: readonly string[], more: object): object {
  const tokens = [...symbols, ...merges.map((merge) => merge.replace(' ', ''))];
  return { type: 'BPE', dropout: null, unk_token: null, fuse_unk: false, vocab: Object.fromEntries(tokens.map((token, id) => [token, id])), merges, ...more };
}

let folders = 0;

/** A folder with tokenizer.json and whatever else is given (objects are written as JSON). */
export function tokenizerFolder(tokenizer: object | null, files: Readonly<Record<string, object | string>> = {}): string {
  const name = `tokenizer-${folders++}`;
  mkdirSync(path.join(root, name), { recursive: true });
  const all = tokenizer ? { 'tokenizer.json': tokenizer, ...files } : files;
  for (const [file, content] of Object.entries(all)) written(`${name}/${file}`, typeof content === 'string' ? content : JSON.stringify(content));
  return path.join(root, name);
}

export const CHATML = "{% for message in messages %}{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

export function loaded(tokenizer: object = byteLevelTokenizer, config: object = {}): Promise<Tokenizer> {
  return loadTokenizer(tokenizerFolder(tokenizer, { 'tokenizer_config.json': { bos_token: '<s>', eos_token: '</s>', chat_template: CHATML, ...config } }));
}

/** Text of the ids that are trained, and of those that are not, as `[learned]` stretches in the text. */
export function shown(tokenizer: Tokenizer, sample: { inputIds: Int32Array; labels: Int32Array }): string {
  const runs: { learned: boolean; ids: number[] }[] = [];
  sample.inputIds.forEach((id, t) => {
    const learned = sample.labels[t] !== -100;
    if (runs.at(-1)?.learned === learned) runs.at(-1)!.ids.push(id);
    else runs.push({ learned, ids: [id] });
  });
  return runs.map(({ learned, ids }) => (learned ? `[${tokenizer.decode(ids)}]` : tokenizer.decode(ids))).join('');
}
