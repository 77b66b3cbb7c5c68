import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { hasSharedData, sharedData } from '../shared-data.ts';
import { duplicateKeys } from '../../src/io/json-keys.ts';
import { readSafetensorsHeader } from '../../src/io/safetensors.ts';
import { safetensorsLayout, writeSafetensors, type TensorSpec } from '../../src/io/safetensors-write.ts';
import { openShards } from '../../src/io/shards.ts';
import { safetensorsBytes } from './safetensors-bytes.ts';

let folder: string;
beforeAll(async () => void (folder = await mkdtemp(path.join(tmpdir(), 'lowrank-safetensors-'))));
afterAll(() => rm(folder, { recursive: true }));

async function read(bytes: Uint8Array) {
  const file = path.join(folder, 'model.safetensors');
  await writeFile(file, bytes);
  return readSafetensorsHeader(file);
}

const entry = (dtype: string, shape: string, begin: number, end: number) =>
  `{"dtype":"${dtype}","shape":${shape},"data_offsets":[${begin},${end}]}`;

interface Malformed {
  what: string;
  bytes: Uint8Array;
  says: RegExp;
}

// Where a verdict isn't obvious it is safetensors 0.8.0's own, but for the two that say otherwise.
const malformed: Malformed[] = [
  { what: 'an empty file', bytes: new Uint8Array(0), says: /at least 8 bytes \(it has 0\)/ },
  { what: 'seven bytes', bytes: new Uint8Array(7), says: /at least 8 bytes \(it has 7\)/ },
  { what: 'a header length past the end', bytes: safetensorsBytes('{}', 0, 1000), says: /header ends at byte 1,008 but the file has 10/ },
  { what: 'a header length past 100 MB', bytes: safetensorsBytes('{}', 0, 100_000_001), says: /100,000,000 bytes.*100,000,001/ },
  { what: 'a header length past 2^63', bytes: safetensorsBytes('{}', 0, 2n ** 64n - 1n), says: /18,446,744,073,709,551,615/ },
  { what: 'a pickle', bytes: Buffer.from('PK\x03\x04'.padEnd(64, 'x')), says: /is this a safetensors file/ },
  { what: 'a header of length 0', bytes: safetensorsBytes('', 8), says: /must start with "\{" \(it starts with ""\)/ },
  { what: 'a space before the brace (the crate lets it pass, the format does not)', bytes: safetensorsBytes(' {}', 0), says: /must start with/ },
  { what: 'an array', bytes: safetensorsBytes('[]', 0), says: /must start with "\{"/ },
  { what: 'bytes that are no UTF-8', bytes: safetensorsBytes(Buffer.from([0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d]), 0), says: /must be UTF-8/ },
  { what: 'a byte order mark', bytes: safetensorsBytes('\ufeff{}', 0), says: /must start with/ },
  { what: 'broken JSON', bytes: safetensorsBytes('{"a":', 0), says: /header must be JSON/ },
  { what: 'text behind the JSON', bytes: safetensorsBytes('{}x', 0), says: /header must be JSON/ },
  { what: 'NaN', bytes: safetensorsBytes(`{"a":${entry('U8', '[NaN]', 0, 1)}}`, 1), says: /header must be JSON/ },
  { what: 'metadata that is a list', bytes: safetensorsBytes('{"__metadata__":[]}', 0), says: /"__metadata__" must be an object of strings \(it is \[\]\)/ },
  { what: 'metadata with a number', bytes: safetensorsBytes('{"__metadata__":{"a":1}}', 0), says: /→ "a" must be a string \(it is 1\)/ },
  { what: 'a tensor that is no object', bytes: safetensorsBytes('{"a":3}', 0), says: /"a" must be an object with dtype, shape and data_offsets \(it is 3\)/ },
  { what: 'no dtype', bytes: safetensorsBytes('{"a":{"shape":[1],"data_offsets":[0,1]}}', 1), says: /"a" has dtype missing/ },
  { what: 'an unknown dtype', bytes: safetensorsBytes(`{"a":${entry('u8', '[1]', 0, 1)}}`, 1), says: /"a" has dtype "u8"; known are BOOL, / },
  { what: 'a dtype from the prototype', bytes: safetensorsBytes(`{"a":${entry('toString', '[1]', 0, 1)}}`, 1), says: /dtype "toString"/ },
  { what: 'a negative size', bytes: safetensorsBytes(`{"a":${entry('U8', '[-1]', 0, 1)}}`, 1), says: /shape of whole numbers \(it is \[-1\]\)/ },
  { what: 'a fractional size', bytes: safetensorsBytes(`{"a":${entry('U8', '[0.5]', 0, 1)}}`, 1), says: /shape of whole numbers/ },
  { what: 'no shape', bytes: safetensorsBytes('{"a":{"dtype":"U8","data_offsets":[0,1]}}', 1), says: /shape of whole numbers \(it is missing\)/ },
  { what: 'one offset', bytes: safetensorsBytes('{"a":{"dtype":"U8","shape":[1],"data_offsets":[0]}}', 1), says: /two byte positions as data_offsets \(it is \[0\]\)/ },
  { what: 'an offset past 2^53', bytes: safetensorsBytes(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,18446744073709551615]}}`, 1), says: /two byte positions/ },
  { what: 'offsets the wrong way round', bytes: safetensorsBytes(`{"a":${entry('F32', '[1]', 4, 0)}}`, 4), says: /"a" ends before it begins/ },
  { what: 'a shape whose product overflows', bytes: safetensorsBytes(`{"a":${entry('U8', '[8589934592,8589934592]', 0, 1)}}`, 1), says: /more elements than can be counted/ },
  { what: 'an overflow that a later 0 would hide', bytes: safetensorsBytes(`{"a":${entry('U8', '[8589934592,8589934592,0]', 0, 0)}}`, 0), says: /more elements than can be counted/ },
  { what: 'bits that overflow', bytes: safetensorsBytes(`{"a":${entry('F64', '[9007199254740991]', 0, 1)}}`, 1), says: /more bits than can be counted/ },
  { what: 'half a byte', bytes: safetensorsBytes(`{"a":${entry('F4', '[3]', 0, 2)}}`, 2), says: /12 bits, which is no whole number of bytes/ },
  { what: 'too few bytes for the shape', bytes: safetensorsBytes(`{"a":${entry('F32', '[2, 3]', 0, 20)}}`, 20), says: /"a" needs 24 bytes for F32 \[2, 3\] but has 20/ },
  { what: 'a hole at the start', bytes: safetensorsBytes(`{"a":${entry('U8', '[1]', 1, 2)}}`, 2), says: /"a" begins at byte \d+, 1 behind the end of the header: a hole/ },
  { what: 'a hole between', bytes: safetensorsBytes(`{"a":${entry('U8', '[1]', 0, 1)},"b":${entry('U8', '[1]', 3, 4)}}`, 4), says: /"b" begins at byte \d+, 2 behind the end of "a": a hole/ },
  { what: 'an overlap', bytes: safetensorsBytes(`{"a":${entry('U8', '[2]', 0, 2)},"b":${entry('U8', '[2]', 1, 3)}}`, 3), says: /"b" begins at byte \d+, inside "a"/ },
  { what: 'two tensors on the same bytes', bytes: safetensorsBytes(`{"a":${entry('U8', '[2]', 0, 2)},"b":${entry('U8', '[2]', 0, 2)}}`, 2), says: /"b" begins at byte \d+, inside "a"/ },
  { what: 'bytes behind the last tensor', bytes: safetensorsBytes(`{"a":${entry('U8', '[1]', 0, 1)}}`, 4), says: /3 bytes behind "a" belong to no tensor/ },
  { what: 'bytes and no tensor', bytes: safetensorsBytes('{}', 2), says: /2 bytes behind the header belong to no tensor/ },
  { what: 'a key that occurs twice (the crate keeps one of them)', bytes: safetensorsBytes(`{"a":${entry('U8', '[1]', 0, 1)},"a":${entry('U8', '[1]', 0, 1)}}`, 1), says: /key "a" occurs twice/ },
  { what: 'a field that occurs twice', bytes: safetensorsBytes('{"a":{"dtype":"U8","dtype":"I8","shape":[1],"data_offsets":[0,1]}}', 1), says: /key "a → dtype" occurs twice/ },
];

describe('safetensors header: refuses', () => {
  test.each(malformed)('$what', async ({ bytes, says }) => {
    await expect(read(bytes)).rejects.toMatchObject({ code: 'ERR_FORMAT', message: expect.stringMatching(says) });
  });

  test('a truncated file, naming the tensor, the byte and the length', async () => {
    const json = `{"lm_head.weight":${entry('F32', '[64]', 0, 256)}}`.padEnd(80);
    await expect(read(safetensorsBytes(json, 100))).rejects.toThrow(/model\.safetensors: "lm_head\.weight" ends at byte 344 but the file has 188$/);
  });

  test('a folder and a missing file, as ERR_FILE', async () => {
    await expect(readSafetensorsHeader(folder)).rejects.toMatchObject({ code: 'ERR_FILE' });
    await expect(readSafetensorsHeader(path.join(folder, 'none'))).rejects.toMatchObject({ code: 'ERR_FILE', message: expect.stringContaining('ENOENT') });
  });

  test('several faults in one error', async () => {
    const json = `{"a":${entry('U9', '[1]', 0, 1)},"b":${entry('U8', '[2]', 1, 2)},"c":7}`;
    await expect(read(safetensorsBytes(json, 2))).rejects.toThrow(/"a" has dtype[^]*"b" needs 2 bytes[^]*"c" must be an object/);
  });

  test('a thousand faults with twenty of them', async () => {
    const json = `{${Array.from({ length: 1000 }, (_, i) => `"t${i}":0`).join(',')}}`;
    const error = await read(safetensorsBytes(json, 0)).catch((e: Error) => e);
    expect((error as Error).message.split('\n')).toHaveLength(22);
    expect((error as Error).message).toContain('and 980 more');
  });
});

describe('safetensors header: takes', () => {
  const fine: [string, string, number, string[]][] = [
    ['no metadata', `{"a":${entry('U8', '[1]', 0, 1)}}`, 1, ['a']],
    ['null metadata', `{"__metadata__":null,"a":${entry('U8', '[1]', 0, 1)}}`, 1, ['a']],
    ['trailing white space', `{"a":${entry('U8', '[1]', 0, 1)}}\n \n`, 1, ['a']],
    ['tensors in any order', `{"b":${entry('U8', '[1]', 1, 2)},"a":${entry('U8', '[1]', 0, 1)}}`, 2, ['b', 'a']],
    ['scalars', `{"a":${entry('F32', '[]', 0, 4)}}`, 4, ['a']],
    ['tensors without elements', `{"a":${entry('F32', '[0,7]', 0, 0)},"b":${entry('F32', '[1]', 0, 4)},"c":${entry('F32', '[0]', 4, 4)}}`, 4, ['a', 'b', 'c']],
    ['an empty tensor listed behind its neighbour', `{"b":${entry('F32', '[1]', 0, 4)},"a":${entry('F32', '[0]', 0, 0)}}`, 4, ['b', 'a']],
    ['fields it does not know', '{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"z":1}}', 1, ['a']],
    ['packed 4-bit numbers', `{"a":${entry('F4', '[2]', 0, 1)}}`, 1, ['a']],
    ['no tensors', '{}', 0, []],
    ['awkward names', `{"__proto__":${entry('U8', '[1]', 0, 1)},"a\\"b":${entry('U8', '[1]', 1, 2)}}`, 2, ['__proto__', 'a"b']],
  ];
  test.each(fine)('%s', async (_, json, body, names) => {
    expect([...(await read(safetensorsBytes(json, body))).tensors.keys()]).toEqual(names);
  });

  test('offsets as positions in the file', async () => {
    const json = `{"__metadata__":{"format":"pt"},"a":${entry('F32', '[2,3]', 0, 24)}}`;
    const { metadata, tensors } = await read(safetensorsBytes(json, 24));
    expect(metadata).toEqual({ format: 'pt' });
    expect(tensors.get('a')).toEqual({ dtype: 'F32', shape: [2, 3], begin: 8 + json.length, end: 8 + json.length + 24 });
  });
});

describe('duplicate keys', () => {
  const cases: [string, string[]][] = [
    ['{"a":1,"b":[{"a":1},{"a":2}],"c":{"a":0}}', []],
    ['{"a":"\\"a\\":1, {","\\u0061":2}', ['a']],
    ['{"x":{"y":{"k":1,"k":2}}}', ['x.y.k']],
    ['{"x":["x","x"],"y":"x"}', []],
    ['{"a" : 1, "a"\n: 2, "a":3}', ['a', 'a']],
  ];
  test.each(cases)('%s: %j', (text, expected) => {
    expect(duplicateKeys(text).map(({ inside, key }) => [...inside, key].join('.'))).toEqual(expected);
  });
});

// Made by safetensors 0.8.0: `save({name: torch.zeros(3, dtype)}, {"b": "1", "a": "2"})`, one tensor per dtype and names
// that sort differently by bytes and by UTF-16 units.
const crateOrder = ['U64', 'I64', 'F64', 'C64', 'F32', 'Z"\\\n\x01/\x7f', 'é', '\uffee', '\u{1f600}', 'U32', 'I32', 'BF16', 'F16', 'U16', 'I16',
  'F8_E5M2FNUZ', 'F8_E4M3FNUZ', 'F8_E8M0', 'F8_E4M3', 'F8_E5M2', 'I8', 'U8', 'BOOL'];

describe('safetensors layout', () => {
  test('orders by dtype, then by the bytes of the name, as the crate does', () => {
    const specs = crateOrder.map((name): TensorSpec => ({ name, dtype: /^[A-Z]+\d/.test(name) || name === 'BOOL' ? (name as TensorSpec['dtype']) : 'F32', shape: [3] }));
    expect(safetensorsLayout([...specs].reverse(), {}).order).toEqual(crateOrder);
  });

  test('writes the bytes that the crate writes', () => {
    const { header, byteLength } = safetensorsLayout([
      { name: 'Z"\\\n\x01/\x7f', dtype: 'F32', shape: [] },
      { name: 'U64', dtype: 'U64', shape: [3] },
    ], { b: '1', a: '2' });
    const text = '{"__metadata__":{"b":"1","a":"2"},"U64":{"dtype":"U64","shape":[3],"data_offsets":[0,24]},'
      + '"Z\\"\\\\\\n\\u0001/\x7f":{"dtype":"F32","shape":[],"data_offsets":[24,28]}}';
    expect(Buffer.from(header).toString('utf8', 8).trimEnd()).toBe(text);
    expect(header.length % 8).toBe(0);
    expect(new DataView(header.buffer, header.byteOffset).getBigUint64(0, true)).toBe(BigInt(header.length - 8));
    expect(byteLength).toBe(header.length + 28);
    expect([...safetensorsLayout([], {}).header]).toEqual([8, 0, 0, 0, 0, 0, 0, 0, ...Buffer.from('{}      ')]); // so does the crate
  });

  test('keeps names that look like numbers in byte order', () => {
    const names = ['10', '2', '1', 'a'];
    expect(safetensorsLayout(names.map((name) => ({ name, dtype: 'U8', shape: [1] }))).order).toEqual(['1', '10', '2', 'a']);
  });

  test('refuses names given twice, the metadata key and half bytes', () => {
    const bad: TensorSpec[] = [
      { name: 'a', dtype: 'U8', shape: [1] }, { name: 'a', dtype: 'U8', shape: [1] },
      { name: '__metadata__', dtype: 'U8', shape: [1] }, { name: 'b', dtype: 'F4', shape: [1] }, { name: 'c', dtype: 'U8', shape: [-1] },
    ];
    expect(() => safetensorsLayout(bad)).toThrow(/"a" is given twice[^]*no name for a tensor[^]*"b": [^]*"c": \[-1\] is no shape/);
  });

  test('what is written is read back, in place', async () => {
    const file = path.join(folder, 'written.safetensors');
    const data = (bytes: number, value: number) => new Uint8Array(bytes).fill(value);
    await writeSafetensors(file, [
      { name: 'half', dtype: 'F16', shape: [3], data: data(6, 1) },
      { name: 'none', dtype: 'F32', shape: [0], data: data(0, 0) },
      { name: 'wide', dtype: 'F32', shape: [2, 2], data: data(16, 2) },
    ], { format: 'pt' });
    const bytes = await readFile(file);
    const { tensors } = await readSafetensorsHeader(file);
    expect([...tensors.keys()]).toEqual(['none', 'wide', 'half']);
    for (const [name, value, size] of [['half', 1, 6], ['wide', 2, 16]] as const) {
      const { begin, end } = tensors.get(name)!;
      expect([...bytes.subarray(begin, end)]).toEqual([...data(size, value)]);
    }
  });

  test('data that does not fit its shape is refused before anything is written', async () => {
    const file = path.join(folder, 'unfit.safetensors');
    await expect(writeSafetensors(file, [{ name: 'a', dtype: 'F32', shape: [2], data: new Uint8Array(7) }])).rejects.toThrow(/"a" needs 8 bytes for F32 \[2\] \(it has 7\)/);
    await expect(readFile(file)).rejects.toThrow('ENOENT');
  });
});

describe.skipIf(!hasSharedData)('safetensors on real files', () => {
  test('layout gives back the header of an adapter that PEFT saved, byte for byte', async () => {
    for (const run of ['tiny_all_linear', 'tiny_qv_masked']) {
      const file = sharedData('parity', run, 'initial_adapter', 'adapter_model.safetensors');
      const { tensors, metadata } = await readSafetensorsHeader(file);
      const { header, byteLength } = safetensorsLayout([...tensors].map(([name, { dtype, shape }]) => ({ name, dtype, shape })).reverse(), metadata);
      const bytes = await readFile(file);
      expect(Buffer.compare(bytes.subarray(0, header.length), header)).toBe(0);
      expect(byteLength).toBe(bytes.length);
    }
  });

  test('a sharded model has the tensors of the single file', async () => {
    const [single, sharded] = await Promise.all(['stories3M-fp16', 'stories3M-fp16-sharded'].map((name) => openShards(sharedData('models', name))));
    expect([...sharded!.tensors.keys()].sort()).toEqual([...single!.tensors.keys()].sort());
    expect(sharded!.files).toHaveLength(3);
  });
});
