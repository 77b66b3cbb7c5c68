import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { loadDataset, type Dataset } from '../../src/data/dataset.ts';
import { loadTokenizer } from '../../src/data/tokenizer.ts';
import { hasSharedData, sharedData } from '../shared-data.ts';
import { byteLevelTokenizer, dummyPrefixTokenizer, jsonl, loaded, shown, tokenizerFolder, written } from './fixtures.ts';
import { parquetFile } from './parquet-fixture.ts';

const tokenizer = await loaded();
const load = (file: string, maxLength = 64): Promise<Dataset> => loadDataset(file, { tokenizer, maxLength });
const all = (data: Dataset): string[] => Array.from({ length: data.length }, (_, i) => shown(tokenizer, data.get(i)));

describe('rows of text', () => {
  it('text: all of it is learned, with start and end', async () => {
    const data = await load(jsonl('text.jsonl', [{ text: 'the cat' }, { text: 'a cat</s>' }, { text: '<s>own start' }]));
    expect(all(data)).toEqual(['[<s>the cat</s>]', '[<s>a cat</s>]', '[<s>own start</s>]']);
  });

  it('prompt and completion: the prompt is masked, the end is learned', async () => {
    const data = await load(jsonl('pair.jsonl', [{ prompt: 'the cat', completion: ' sat', note: 'other columns may stand here' }, { prompt: '', completion: 'sat' }]));
    expect(all(data)).toEqual(['<s>the cat[ sat</s>]', '<s>[sat</s>]']);
  });

  it.each([byteLevelTokenizer, dummyPrefixTokenizer])('prompt and completion: the prompt has the tokens it has when generating', async (json) => {
    const own = await loaded(json);
    for (const [prompt, completion] of [['the c', 'at'], ['the', ' cat'], ['x:', 'a'], ['a\n', '\nb']] as const) {
      const data = await loadDataset(jsonl('border.jsonl', [{ prompt, completion }]), { tokenizer: own, maxLength: 64 });
      const { inputIds, labels } = data.get(0);
      const asked = own.encode(prompt);
      expect([...inputIds.subarray(0, asked.length)]).toEqual(asked);
      expect([...labels]).toEqual([...inputIds].map((id, t) => (t < asked.length ? -100 : id)));
      expect(own.decode([...inputIds], { skipSpecialTokens: true })).toBe(prompt + completion);
    }
  });

  it('a tokenizer without an end token appends none', async () => {
    const bare = await loadTokenizer(tokenizerFolder(byteLevelTokenizer));
    const data = await loadDataset(jsonl('bare.jsonl', [{ text: 'cat' }]), { tokenizer: bare, maxLength: 9 });
    expect(shown(bare, data.get(0))).toBe('[<s>cat]');
  });

  it('kinds may be mixed, and null counts as absent', async () => {
    const rows = [{ text: 'a', prompt: null, input_ids: null }, { prompt: 'a', completion: 'b', text: 'c' }, { input_ids: [5, 6], text: 'd' }];
    expect(all(await load(jsonl('mixed.jsonl', rows)))).toEqual(['[<s>a</s>]', '<s>a[b</s>]', '["#]'.replace('"#', tokenizer.decode([5, 6]))]);
  });

  it('CRLF, a byte order mark, blank lines and a missing last newline are fine', async () => {
    const file = written('windows.jsonl', '\uFEFF{"text":"a"}\r\n\r\n{"text":"b\u2028"}\r\n   \n{"text":"c"}');
    expect(all(await load(file))).toEqual(['[<s>a</s>]', '[<s>b\u2028</s>]', '[<s>c</s>]']);
  });

  it('lines longer than a read, and characters cut by it, come through whole', async () => {
    const texts = [1, 270_001, 3].map((length, i) => `${i}é猫`.repeat(Math.ceil(length / 3)));
    const data = await load(jsonl('long.jsonl', texts.map((text) => ({ text }))), 2_000_000);
    expect(data.length).toBe(3);
    texts.forEach((text, i) => expect(tokenizer.decode([...data.get(i).inputIds], { skipSpecialTokens: true })).toBe(text));
  });

  it('longer rows lose their end and are counted; rows with nothing left to learn are left out', async () => {
    const data = await load(jsonl('cut.jsonl', [{ text: 'the cat sat' }, { text: 'a' }, { prompt: 'abcdefgh', completion: 'x' }, { prompt: 'b', completion: 'cat' }]), 3);
    expect(all(data)).toEqual(['[<s>the cat]', '[<s>a</s>]', '<s>b[cat]']);
    expect([data.truncated, data.skipped]).toEqual([3, 1]);
  });
});

describe('rows of ids', () => {
  it('labels are input_ids unless given', async () => {
    const data = await load(jsonl('ids.jsonl', [{ input_ids: [1, 2, 3] }, { input_ids: [4, 5], labels: [-100, 5] }]));
    expect(data.get(0)).toEqual({ inputIds: Int32Array.of(1, 2, 3), labels: Int32Array.of(1, 2, 3) });
    expect(data.get(1)).toEqual({ inputIds: Int32Array.of(4, 5), labels: Int32Array.of(-100, 5) });
  });

  const MASKS = [
    { where: 'right', mask: [1, 1, 1, 0], ids: [5, 6, 7], labels: [5, 6, 7], positions: undefined },
    { where: 'left', mask: [0, 1, 1, 1], ids: [6, 7, 8], labels: [-100, 7, 8], positions: [1, 2, 3] },
    { where: 'inside', mask: [1, 0, 1, 1], ids: [5, 7, 8], labels: [5, -100, 8], positions: [0, 2, 3] },
    { where: 'nowhere', mask: [1, 1, 1, 1], ids: [5, 6, 7, 8], labels: [5, 6, 7, 8], positions: undefined },
  ];
  it.each(MASKS)('padding $where is dropped and columns stay the positions', async ({ mask, ids, labels, positions }) => {
    const sample = (await load(jsonl('mask.jsonl', [{ input_ids: [5, 6, 7, 8], attention_mask: mask }]))).get(0);
    expect([[...sample.inputIds], [...sample.labels]]).toEqual([ids, labels]);
    expect(sample.positions && [...sample.positions]).toEqual(positions);
  });

  it('keep their number and order even where nothing is learned, and are truncated with their positions', async () => {
    const rows = [{ input_ids: [1, 2], labels: [-100, -100] }, { input_ids: [1, 2, 3, 4, 5], attention_mask: [0, 1, 1, 1, 1] }];
    const data = await load(jsonl('kept.jsonl', rows), 3);
    expect([data.length, data.truncated, data.skipped]).toEqual([2, 1, 0]);
    expect(data.get(1).positions).toEqual(Int32Array.of(1, 2, 3));
  });

  it('need no tokenizer', async () => {
    const data = await loadDataset(jsonl('free.jsonl', [{ input_ids: [1, 2, 40_000] }]), { tokenizer: null, maxLength: 8 });
    expect(data.length).toBe(1);
    await expect(loadDataset(jsonl('bound.jsonl', [{ input_ids: [1, 2, 40_000] }]), { tokenizer: null, maxLength: 8, vocabSize: 40_000 })).rejects.toThrow('0 … 39999');
  });

  it('may lie above the tokenizer where the model is larger', async () => {
    const file = jsonl('padded.jsonl', [{ input_ids: [1, 280] }]);
    await expect(load(file)).rejects.toThrow('found 280 at 1');
    expect((await loadDataset(file, { tokenizer, maxLength: 8, vocabSize: 320 })).length).toBe(1);
  });
});

describe('bad rows are told with file and line', () => {
  const ROWS: [string, string][] = [
    ['{"prompt":7,"completion":"a"}', '"prompt" must be a string (found number)'],
    ['{"prompt":"a","completion":["b"]}', '"completion" must be a string (found array)'],
    ['{"prompt":"a"}', '"completion" must stand beside "prompt" (found nothing)'],
    ['{"completion":"a"}', '"prompt" must stand beside "completion" (found nothing)'],
    ['{"text":{}}', '"text" must be a string (found object)'],
    ['{"question":"q","answer":"a"}', 'must be one of {"text"}, {"prompt", "completion"}, {"messages"} or {"input_ids", "labels"?, "attention_mask"?} (found "question", "answer")'],
    ['{}', '(found no column)'],
    ['"text"', 'must be one JSON object on each line (found string)'],
    ['[1,2]', 'must be one JSON object on each line (found an array)'],
    ['[', 'the start of a JSON array'],
    ['{"text":"a"', 'must be one JSON object on each line ('],
    ['{"messages":"hi"}', '"messages" must be a list of at least one {role, content} (found string)'],
    ['{"messages":[]}', '"messages" must be a list of at least one {role, content}'],
    ['{"messages":[{"content":"hi"}]}', 'turn 0 has no role'],
    ['{"messages":[{"role":"user","content":"hi"}]}', 'must have a turn of role "assistant"'],
    ['{"messages":[{"role":"assistant","content":"hi"}],"tools":{}}', '"tools" must be a list (found object)'],
    ['{"input_ids":[]}', '"input_ids" must have at least one id (found none)'],
    ['{"input_ids":"1 2"}', '"input_ids" must be a list of whole numbers (found string)'],
    ['{"input_ids":[1,2.5]}', '"input_ids" must be a list of whole numbers (found 2.5 at 1)'],
    ['{"input_ids":[1,"2"]}', '"input_ids" must be a list of whole numbers (found "2" at 1)'],
    ['{"input_ids":[1,null]}', '(found null at 1)'],
    ['{"input_ids":[1,5000000000]}', '(found 5000000000 at 1)'],
    ['{"input_ids":[1,270]}', 'token ids must be 0 … 269, the vocabulary (found 270 at 1)'],
    ['{"input_ids":[-1,2]}', '(found -1 at 0)'],
    ['{"input_ids":[1,2],"labels":[1]}', '"labels" must be as long as "input_ids" (found 1 for 2)'],
    ['{"input_ids":[1,2],"labels":[1,-2]}', 'labels must be -100 or 0 … 269, the vocabulary (found -2 at 1)'],
    ['{"input_ids":[1,2],"attention_mask":[1]}', '"attention_mask" must be as long as "input_ids" (found 1 for 2)'],
    ['{"input_ids":[1,2],"attention_mask":[1,2]}', '"attention_mask" must hold 0 and 1 (found 2)'],
    ['{"input_ids":[1,2],"attention_mask":[0,0]}', '"attention_mask" must have a 1 (found only 0)'],
  ];
  it.each(ROWS)('%s', async (row, fault) => {
    const file = written('bad.jsonl', `{"text":"good"}\n\n${row}\n{"text":"good"}`);
    const error = await load(file).catch((thrown: unknown) => thrown as Error & { code: string });
    expect(error).toMatchObject({ code: 'ERR_DATA', message: expect.stringContaining(fault) as string });
    expect((error as Error).message.startsWith(`${file}:3: `)).toBe(true);
  });

  it('bytes that are not UTF-8', async () => {
    const file = written('latin1.jsonl', Buffer.from('{"text":"ok"}\n{"text":"caf\xe9"}\n', 'latin1'));
    await expect(load(file)).rejects.toThrow(`${file}:2: must be UTF-8 (found other bytes)`);
  });

  it('several at once, ten at most', async () => {
    const three = jsonl('three.jsonl', [{ text: 1 }, { text: 'a' }, {}, { text: null, prompt: 'p' }]);
    await expect(load(three)).rejects.toThrow(`${three}:\n  - ${three}:1: "text" must be a string (found number)\n  - ${three}:3: must be one of`);
    const many = jsonl('many.jsonl', Array.from({ length: 50 }, () => ({ text: 1 })));
    const error = await load(many).catch((thrown: unknown) => thrown as Error);
    expect((error as Error).message.split('\n  - ')).toHaveLength(12);
    expect((error as Error).message).toMatch(/:10: .*\n {2}- the rest was not read: 10 faults are enough$/);
  });
});

describe('bad files', () => {
  const FILES: { claim: string; file: () => string; code: string; text: RegExp }[] = [
    { claim: 'an empty file', file: () => written('empty.jsonl', ''), code: 'ERR_DATA', text: /must hold at least one row \(found an empty file\)$/ },
    { claim: 'a file of blank lines', file: () => written('blank.jsonl', '\n\r\n  \n'), code: 'ERR_DATA', text: /found an empty file/ },
    { claim: 'an empty text', file: () => written('empty.txt', '\n\n'), code: 'ERR_DATA', text: /found an empty file/ },
    { claim: 'a file in which all is masked', file: () => jsonl('masked.jsonl', [{ input_ids: [1, 2], labels: [1, -100] }]), code: 'ERR_DATA', text: /at least one token to learn \(found none in 1 rows\)$/ },
    { claim: 'prompts that fill every row', file: () => jsonl('prompts.jsonl', [{ prompt: 'x'.repeat(99), completion: 'y' }]), code: 'ERR_DATA', text: /are prompts longer than the maximum length\?\)$/ },
    { claim: 'a file that is not there', file: () => 'nowhere.jsonl', code: 'ERR_FILE', text: /^nowhere\.jsonl: must be a file \(not found\)$/ },
    { claim: 'a folder', file: () => tokenizerFolder(null) + '/../tokenizer-0/tokenizer.json/../../.jsonl'.slice(0, 0), code: 'ERR_ARGUMENT', text: /must be \.jsonl, \.txt, \.csv or \.parquet/ },
    { claim: 'a JSON array', file: () => written('rows.json', '[]'), code: 'ERR_ARGUMENT', text: /found "\.json"\); `jq -c/ },
    { claim: 'a text that is not UTF-8', file: () => written('latin1.txt', Buffer.from('caf\xe9 noir', 'latin1')), code: 'ERR_DATA', text: /must be UTF-8 text/ },
    { claim: 'a table that is no Parquet', file: () => written('no.parquet', 'PAR1 not really'), code: 'ERR_FORMAT', text: /must be a Parquet file \(/ },
  ];
  it.each(FILES)('$claim is refused', async ({ file, code, text }) => {
    await expect(load(file())).rejects.toMatchObject({ code, message: expect.stringMatching(text) as string });
  });

  it.each([0, 1, 2.5, NaN])('a maximum length of %d is refused', async (maxLength) => {
    await expect(load('x.jsonl', maxLength)).rejects.toMatchObject({ code: 'ERR_ARGUMENT' });
  });

  it('an index outside the data set is refused', async () => {
    const data = await load(jsonl('one.jsonl', [{ text: 'a' }]));
    expect(() => data.get(1)).toThrow("a sample's index must be 0 … 0 (found 1)");
  });
});

describe('.csv', () => {
  it('has the columns of .jsonl; quotes, newlines in cells and empty cells are fine', async () => {
    const file = written('a.csv', '\uFEFFid,text,prompt,completion,input_ids\r\n1,"a ""cat""\nsat",,,\r\n2,,the,\" cat\",\r\n\r\n3,,,,"[5, 6]"\r\n');
    expect(all(await load(file))).toEqual(['[<s>a "cat"\nsat</s>]', '<s>the[ cat</s>]', `[${tokenizer.decode([5, 6])}]`]);
  });

  const BAD: [string, string, string][] = [
    ['a list that is no JSON', 'input_ids\n"[1,"\n', ':2: "input_ids" must be a list, written as JSON (found "[1,")'],
    ['a row with too many cells', 'text,n\na,1\nb,2,3\n', ':3: must be CSV with a header line (Invalid Record Length'],
    ['a quote that never ends', 'text\n"abc\n', 'must be CSV with a header line (Quote Not Closed'],
    ['columns of other names', 'q,a\nb,c\n', ':2: must be one of'],
  ];
  it.each(BAD)('%s is told with its line', async (_, content, fault) => {
    const file = written('bad.csv', content);
    await expect(load(file)).rejects.toMatchObject({ code: 'ERR_DATA', message: expect.stringContaining(fault) as string });
  });
});

describe('.parquet', () => {
  it('reads every kind of row over several row groups', async () => {
    const data = await load(written('a.parquet', parquetFile));
    expect(all(data).slice(0, 3)).toEqual(['[<s>a cat</s>]', '<s>the cat[ sat</s>]', '<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n[a cat<|im_end|>\n]']);
    expect(data.get(3)).toEqual({ inputIds: Int32Array.of(1, 2, 3, 4), labels: Int32Array.of(-100, 2, 3, 4) });
  });

  it('tells a bad row by its number', async () => {
    const file = written('small-vocabulary.parquet', parquetFile);
    await expect(loadDataset(file, { tokenizer: null, maxLength: 8 })).rejects.toThrow(`${file}: row 3: must have "input_ids"`);
  });
});

describe('.txt', () => {
  it('is cut into blocks one behind the other, the last one shorter', async () => {
    const data = await load(written('a.txt', '\r\nthe cat sat\r\n\r\nb\r\n\r\n'), 4);
    expect(all(data)).toEqual(['[<s>the cat sat]', '[\n\nb</s>]']);
    expect((await loadDataset(data.source, { tokenizer, maxLength: 4, textBlock: 5 })).length).toBe(2);
  });

  it('documents between <|endoftext|> start and end as the model expects', async () => {
    const data = await load(written('docs.txt', 'a\n<|endoftext|>\n\nb cat\n<|endoftext|>\n<|endoftext|>c<|endoftext|>'));
    expect(all(data)).toEqual(['[<s>a</s><s>b cat</s><s>c</s>]']);
  });

  it.each([byteLevelTokenizer, dummyPrefixTokenizer])('a long text has the tokens it has as one piece', async (json) => {
    const own = await loaded(json);
    const text = 'the cat sat.\n\nA cat: the  cat\n'.repeat(2500).trimEnd();
    const data = await loadDataset(written('long.txt', text), { tokenizer: own, maxLength: 999 });
    const ids = Array.from({ length: data.length }, (_, i) => [...data.get(i).inputIds]).flat();
    expect(ids).toEqual([...own.encode(text), 1]);
  });

  it('a text without any place to cut is still read', async () => {
    const data = await load(written('line.txt', '🐈'.repeat(150_000)), 65_536);
    const ids = Array.from({ length: data.length }, (_, i) => [...data.get(i).inputIds]).flat();
    expect(tokenizer.decode(ids, { skipSpecialTokens: true })).toBe('🐈'.repeat(150_000));
  });
});

describe.skipIf(!hasSharedData)('real files', () => {
  it.each(['models/stories260K-fp32', 'models/stories3M-fp32', 'tokenizers/gpt2'])('tinyshakespeare in pieces has the tokens of the whole: %s', async (folder) => {
    const own = await loadTokenizer(sharedData(folder));
    const text = readFileSync(sharedData('datasets', 'tinyshakespeare', 'input.txt'), 'utf8').slice(0, 150_000).trimEnd();
    const data = await loadDataset(written('shakespeare.txt', text), { tokenizer: own, maxLength: 512 });
    const ids = Int32Array.from(Array.from({ length: data.length }, (_, i) => [...data.get(i).inputIds]).flat());
    const whole = own.encode(text);
    expect(ids.length).toBe(whole.length + (own.eosId === null ? 0 : 1));
    expect(whole.findIndex((id, t) => id !== ids[t])).toBe(-1);
  });

  it('e2e: all rows are read', async () => {
    const own = await loadTokenizer(sharedData('models', 'stories3M-fp32'));
    const data = await loadDataset(sharedData('datasets', 'e2e', 'valid.jsonl'), { tokenizer: own, maxLength: 512 });
    expect([data.length, data.truncated]).toEqual([4672, 0]);
  });
});
