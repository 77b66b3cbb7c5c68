import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { openShards } from '../../src/io/shards.ts';
import { writeSafetensors } from '../../src/io/safetensors-write.ts';

let root: string;
beforeAll(async () => void (root = await mkdtemp(path.join(tmpdir(), 'lowrank-shards-'))));
afterAll(() => rm(root, { recursive: true }));

interface Layout {
  shards?: Record<string, string[]>;
  index?: unknown;
  files?: Record<string, string>;
}

let made = 0;
async function folderOf({ shards = {}, index, files = {} }: Layout): Promise<string> {
  const folder = path.join(root, String(made++));
  await mkdir(folder);
  for (const [name, weights] of Object.entries(shards)) {
    await writeSafetensors(path.join(folder, name), weights.map((weight) => ({ name: weight, dtype: 'U8', shape: [1], data: new Uint8Array(1) })));
  }
  if (index !== undefined) files = { ...files, 'model.safetensors.index.json': typeof index === 'string' ? index : JSON.stringify(index) };
  for (const [name, text] of Object.entries(files)) await writeFile(path.join(folder, name), text);
  return folder;
}

const two = { 's1.safetensors': ['a', 'b'], 's2.safetensors': ['c'] };
const map = { a: 's1.safetensors', b: 's1.safetensors', c: 's2.safetensors' };

describe('model folder: found', () => {
  test('one file', async () => {
    const folder = await folderOf({ shards: { 'model.safetensors': ['a'] } });
    const { tensors, files } = await openShards(folder);
    expect(files).toEqual([path.join(folder, 'model.safetensors')]);
    expect(tensors.get('a')).toMatchObject({ dtype: 'U8', shape: [1], file: files[0] });
  });

  test('shards, each weight with its own file', async () => {
    const folder = await folderOf({ shards: two, index: { metadata: { total_size: 3 }, weight_map: map } });
    const { tensors } = await openShards(folder);
    expect([...tensors].map(([name, { file }]) => [name, path.basename(file)])).toEqual(Object.entries(map));
  });

  test('the single file before a stale index', async () => {
    const folder = await folderOf({ shards: { 'model.safetensors': ['x'] }, index: { weight_map: map } });
    expect([...(await openShards(folder)).tensors.keys()]).toEqual(['x']);
  });
});

const wrong: [string, Layout, string, RegExp][] = [
  ['an empty folder', {}, 'ERR_FILE', /must hold model\.safetensors or .*\(it is empty\)/],
  ['a pickle only', { files: { 'pytorch_model.bin': '' } }, 'ERR_FILE', /only pytorch_model\.bin.*save_pretrained\('\.', safe_serialization=True\)/],
  ['sharded pickles', { files: { 'pytorch_model.bin.index.json': '{}', 'pytorch_model-00001-of-00002.bin': '' } }, 'ERR_FILE', /Python pickle; convert it/],
  ['a GGUF file', { files: { 'm.gguf': '' } }, 'ERR_FILE', /GGUF/],
  ['weights of another name', { shards: { 'weights.safetensors': ['a'] } }, 'ERR_FILE', /it has weights\.safetensors; rename it/],
  ['a missing shard', { shards: { 's1.safetensors': ['a', 'b'] }, index: { weight_map: map } }, 'ERR_FORMAT', /"s2\.safetensors" is missing; "c" should be in it/],
  ['a weight that its shard lacks', { shards: { ...two, 's2.safetensors': [] }, index: { weight_map: map } }, 'ERR_FORMAT', /"s2\.safetensors" lacks "c"/],
  ['a weight in two shards', { shards: { ...two, 's2.safetensors': ['a', 'c'] }, index: { weight_map: map } }, 'ERR_FORMAT', /"s2\.safetensors" holds "a", which the index places elsewhere/],
  ['a weight that the index lacks', { shards: { ...two, 's2.safetensors': ['c', 'd'] }, index: { weight_map: map } }, 'ERR_FORMAT', /holds "d", which the index doesn't name/],
  ['a damaged shard', { shards: { 's1.safetensors': ['a', 'b'] }, files: { 's2.safetensors': 'x' }, index: { weight_map: map } }, 'ERR_FORMAT', /s2\.safetensors: a safetensors file has at least 8 bytes/],
  ['an index that is no JSON', { index: '{' }, 'ERR_FORMAT', /must be JSON/],
  ['an index without a map', { index: { weights: {} } }, 'ERR_FORMAT', /must have an object "weight_map"/],
  ['an empty map', { index: { weight_map: {} } }, 'ERR_FORMAT', /at least one weight/],
  ['a shard outside of the folder', { index: { weight_map: { a: '../x.safetensors', b: 7 } } }, 'ERR_FORMAT', /"a" must name a file of this folder[^]*"b" must name/],
];

describe('model folder: refused', () => {
  test.each(wrong)('%s', async (_, layout, code, says) => {
    await expect(openShards(await folderOf(layout))).rejects.toMatchObject({ code, message: expect.stringMatching(says) });
  });

  test('a folder that does not exist', async () => {
    await expect(openShards(path.join(root, 'none'))).rejects.toMatchObject({ code: 'ERR_FILE', message: expect.stringContaining('ENOENT') });
  });

  test('all faults of all shards at once', async () => {
    const folder = await folderOf({ shards: { 's1.safetensors': ['a'] }, index: { weight_map: map } });
    await expect(openShards(folder)).rejects.toThrow(/"s2\.safetensors" is missing[^]*"s1\.safetensors" lacks "b"/);
  });
});
