import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { continuationIds, openingIds } from '../../src/data/continuation.ts';
import { loadTokenizer } from '../../src/data/tokenizer.ts';
import { hasSharedData, sharedData } from '../shared-data.ts';
import { byteLevelTokenizer, dummyPrefixTokenizer, loaded, tokenizerFolder } from './fixtures.ts';

const TEXTS = ['', 'the cat sat', ' cat', 'cat  cat ', 'été, 猫が好き 🐈‍⬛!', 'a\n\nb\r\n', '\uFFFD odd \uFFFD', 'ends in half: é'];
const KINDS = [
  { name: 'byte-level', json: byteLevelTokenizer },
  { name: 'dummy prefix', json: dummyPrefixTokenizer },
];

describe.each(KINDS)('$name tokenizer', ({ json }) => {
  it.each(TEXTS)('decodes what it encodes: %j', async (text) => {
    const tokenizer = await loaded(json);
    expect(tokenizer.decode(tokenizer.encode(text, { addSpecialTokens: false }))).toBe(text);
    expect(tokenizer.decode(tokenizer.encode(text), { skipSpecialTokens: true })).toBe(text);
    expect(tokenizer.encode(text)[0]).toBe(0);
  });

  it.each(TEXTS)('streams the same text as it decodes at once: %j', async (text) => {
    const tokenizer = await loaded(json);
    const decoder = tokenizer.decoder();
    for (const _ of ['the first time', 'after a flush']) {
      let streamed = '';
      for (const id of tokenizer.encode(text)) {
        streamed += decoder.push(id);
        expect(text.startsWith(streamed)).toBe(true);
      }
      expect(streamed + decoder.flush()).toBe(text);
    }
  });

  it('streams any ids at all to the text they decode to', async () => {
    const tokenizer = await loaded(json);
    let state = 7;
    const ids = Array.from({ length: 3000 }, () => (state = (Math.imul(state, 1103515245) + 12345) >>> 0) % tokenizer.vocabSize);
    const decoder = tokenizer.decoder({ skipSpecialTokens: false });
    expect(ids.map((id) => decoder.push(id)).join('') + decoder.flush()).toBe(tokenizer.decode(ids));
  });

  it.each(['', ' sat', 'sat', '\nsat', 'cat</s>', '🐈'])('a continuation decodes behind its opening without a space of its own: %j', async (text) => {
    const tokenizer = await loaded(json);
    const ids = [...openingIds(tokenizer, 'the cat:'), ...continuationIds(tokenizer, text)];
    expect(tokenizer.decode(ids)).toBe(`<s>${json === dummyPrefixTokenizer ? ' ' : ''}the cat:${text}`);
  });
});

describe('streaming decoder', () => {
  it('gives out a character of several tokens with its last one', async () => {
    const tokenizer = await loaded();
    const decoder = tokenizer.decoder();
    const ids = tokenizer.encode('猫', { addSpecialTokens: false });
    expect(ids.map((id) => decoder.push(id))).toEqual(['', '', '猫']);
    expect(decoder.flush()).toBe('');
  });

  it('shows a character that never ends when it is flushed', async () => {
    const tokenizer = await loaded();
    const decoder = tokenizer.decoder();
    const ids = tokenizer.encode('a猫', { addSpecialTokens: false }).slice(0, -1);
    expect(ids.map((id) => decoder.push(id)).join('')).toBe('a');
    expect(decoder.flush()).toBe('\uFFFD');
  });

  it('leaves special tokens out unless told otherwise', async () => {
    const tokenizer = await loaded();
    expect(tokenizer.decoder().push(1)).toBe('');
    expect(tokenizer.decoder({ skipSpecialTokens: false }).push(1)).toBe('</s>');
  });
});

describe('loadTokenizer', () => {
  it('takes special tokens from names, objects, and the ids of the model, in this order', async () => {
    const folder = tokenizerFolder(byteLevelTokenizer, {
      'tokenizer_config.json': { bos_token: { content: '<s>' }, eos_token: null },
      'special_tokens_map.json': { pad_token: '<|im_end|>' },
      'generation_config.json': { eos_token_id: [3, 1] },
      'config.json': { eos_token_id: 1, bos_token_id: 2 },
    });
    const tokenizer = await loadTokenizer(folder);
    expect([tokenizer.bosId, tokenizer.eosId, tokenizer.padId]).toEqual([0, 3, 3]);
    expect(tokenizer.stopIds).toEqual([3, 1]);
    expect(tokenizer.vocabSize).toBe(270);
  });

  it('has null for tokens nobody names', async () => {
    const tokenizer = await loadTokenizer(tokenizerFolder(byteLevelTokenizer));
    expect(tokenizer).toMatchObject({ bosId: null, eosId: null, padId: null, stopIds: [], chatTemplate: null });
  });

  it('adds tokens that only tokenizer_config.json declares', async () => {
    const tokenizer = await loaded(byteLevelTokenizer, { added_tokens_decoder: { 300: { content: '<tool>', special: true, lstrip: false, rstrip: false, single_word: false, normalized: false } } });
    expect(tokenizer.vocabSize).toBe(301);
    expect(tokenizer.encode('a<tool>', { addSpecialTokens: false }).at(-1)).toBe(300);
  });

  it('takes the default one of several chat templates, and chat_template.jinja before all', async () => {
    const config = { chat_template: [{ name: 'tool_use', template: 'T' }, { name: 'default', template: 'D' }] };
    expect((await loaded(byteLevelTokenizer, config)).chatTemplate).toBe('D');
    const folder = tokenizerFolder(byteLevelTokenizer, { 'tokenizer_config.json': config, 'chat_template.jinja': 'J' });
    expect((await loadTokenizer(folder)).chatTemplate).toBe('J');
  });

  it('leaves ids without a token out of the text', async () => {
    const tokenizer = await loaded();
    expect(tokenizer.decode([...tokenizer.encode('cat', { addSpecialTokens: false }), 99_999, -1])).toBe('cat');
    expect(tokenizer.decode([])).toBe('');
  });

  const BAD = [
    { claim: 'a folder without tokenizer files', files: {}, code: 'ERR_FILE', text: /tokenizer\.json: is required \(found no tokenizer file at all\)$/ },
    { claim: 'a GPT-2 folder with its old files only', files: { 'vocab.json': '{}', 'merges.txt': '' }, code: 'ERR_FILE', text: /found vocab\.json, merges\.txt\).*save_pretrained/ },
    { claim: 'a tokenizer.json that is no JSON', files: { 'tokenizer.json': '{"model":' }, code: 'ERR_FORMAT', text: /tokenizer\.json: must be JSON/ },
    { claim: 'a tokenizer.json that is a list', files: { 'tokenizer.json': '[]' }, code: 'ERR_FORMAT', text: /must be a JSON object \(found an array\)/ },
    { claim: 'a tokenizer.json without a model', files: { 'tokenizer.json': '{}' }, code: 'ERR_FORMAT', text: /must describe a tokenizer/ },
    { claim: 'a tokenizer of an unknown kind', files: { 'tokenizer.json': '{"model":{"type":"Magic","vocab":{}}}' }, code: 'ERR_FORMAT', text: /must describe a tokenizer/ },
  ];
  it.each(BAD)('refuses $claim', async ({ files, code, text }) => {
    await expect(loadTokenizer(tokenizerFolder(null, files))).rejects.toMatchObject({ code, message: expect.stringMatching(text) as string });
  });
});

describe.skipIf(!hasSharedData)('Hugging Face tokenizers', () => {
  type Case = { text: string; ids: number[]; ids_with_special: number[]; decoded: string };
  const folders = { stories260K: ['models', 'stories260K-fp32'], stories3M: ['models', 'stories3M-fp32'], gpt2: ['tokenizers', 'gpt2'] } as const;
  const cases = hasSharedData ? (JSON.parse(readFileSync(sharedData('expected', 'tokenizer_cases.json'), 'utf8')) as Record<string, Case[]>) : {};

  it.each(Object.keys(folders) as (keyof typeof folders)[])('%s: ids and text are those of the Rust tokenizer', async (name) => {
    const tokenizer = await loadTokenizer(sharedData(...folders[name]));
    const own = cases[name]!.map(({ text, ids }) => ({ text, ids: tokenizer.encode(text, { addSpecialTokens: false }), ids_with_special: tokenizer.encode(text), decoded: tokenizer.decode(ids) }));
    expect(own.length).toBeGreaterThan(0);
    expect(own).toEqual(cases[name]);
    for (const { ids, decoded } of cases[name]!) {
      const decoder = tokenizer.decoder({ skipSpecialTokens: false });
      expect(ids.map((id) => decoder.push(id)).join('') + decoder.flush()).toBe(decoded);
    }
  });
});
