import { mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { adapterKey } from '../../src/io/peft-keys.ts';
import { parseSafetensorsHeader } from '../../src/io/safetensors.ts';
import { writeSafetensors } from '../../src/io/safetensors-write.ts';
import { attachLora, type AttachConfig } from '../../src/lora/attach.ts';
import { drawA } from '../../src/lora/init.ts';
import { loadAdapter } from '../../src/lora/load.ts';
import { activeAdapter, adaptersOf, setAdapter } from '../../src/lora/model-adapters.ts';
import type { Model } from '../../src/models/model.ts';
import { scope } from '../../src/scope.ts';
import { onCpu } from '../on-cpu.ts';
import { normals } from '../reference/finite-difference.ts';
import { attentionNames, C, downName, joined, smallModel, type SmallModelOptions } from './small-model.ts';

const cpu = onCpu();
let folder = '';
beforeAll(async () => void (folder = await mkdtemp(path.join(tmpdir(), 'lowrank-adapter-'))));
afterAll(() => rm(folder, { recursive: true, force: true }));

async function withModel(body: (model: Model) => unknown, options: SmallModelOptions = {}): Promise<void> {
  const model = smallModel(cpu.device, options);
  try {
    await body(model);
  } finally {
    for (const adapter of adaptersOf(model)) adapter.dispose();
    model.dispose();
  }
}

/** Hidden states of one short sequence. */
async function hiddenOf(model: Model): Promise<Float32Array> {
  using ids = cpu.device.tensor(Int32Array.of(1, 5, 9, 2));
  using hidden = scope(() => model.hidden({ ids, positions: ids, offsets: ids, length: 10 }));
  return hidden.data();
}

const [q, k, v] = attentionNames(0) as [string, string, string];
const all: AttachConfig = { rank: 2, alpha: 6, targets: 'all-linear' };
const width = joined[0] + joined[1] + joined[2];

describe('attachLora', () => {
  test('lays all A\'s before all B\'s, and the parts of one Linear side by side', () => withModel((model) => {
    const adapter = attachLora(model, { rank: 2, targets: ['q_proj', 'v_proj', 'down_proj'], rankPattern: { v_proj: 3 }, layersToTransform: 0 });
    expect(adapter.modules.map(({ name, rank, beginA, beginB }) => [name, rank, beginA, beginB])).toEqual([
      [q, 2, 0, 5 * C + 2 * width],
      [v, 3, 2 * C, 5 * C + 2 * width + 2 * joined[0]],
      [downName(0), 2, 5 * C, 5 * C + 2 * width + 2 * joined[0] + 3 * joined[2]],
    ]);
    const [attention] = model.linears;
    expect(attention?.lora?.ranks).toEqual([2, 0, 3]);
    expect([attention?.lora?.a.shape, attention?.lora?.b.shape]).toEqual([[5, C], [2 * joined[0] + 3 * joined[2]]]);
    expect(adapter.parameters().size).toBe(5 * C + 2 * width + 2 * joined[0] + 3 * joined[2] + 2 * C);
    expect(model.linears[2]?.lora).toBeNull();
  }));

  test('changes nothing at first: B is zero', () => withModel(async (model) => {
    const before = await hiddenOf(model);
    const adapter = attachLora(model, all);
    expect(Buffer.compare(Buffer.from((await hiddenOf(model)).buffer), Buffer.from(before.buffer))).toBe(0);
    const { groups, parameters } = adapter.parameters();
    const values = await parameters.data();
    expect(values.subarray(groups[1]!.begin).every((x) => x === 0)).toBe(true);
    expect(values.subarray(0, groups[1]!.begin).every((x) => x !== 0)).toBe(true);
  }));

  test('a module\'s first A depends on seed and name, not on what else is adapted', () => withModel(async (model) => {
    const read = async (config: AttachConfig): Promise<Float32Array> => {
      using adapter = attachLora(model, config);
      return adapter.modules.find(({ name }) => name === v)!.a.data();
    };
    const alone = await read({ rank: 2, targets: [v], seed: 5 });
    expect(await read({ ...all, seed: 5 })).toEqual(alone);
    expect(await read({ ...all, seed: 6 })).not.toEqual(alone);
    expect(await read({ ...all, seed: 5 + 2 ** 40 })).not.toEqual(alone);
  }));

  test.each([
    ['kaiming', (values: Float32Array, K: number) => [Math.max(...values.map(Math.abs)), 1 / Math.sqrt(K), deviation(values), 1 / Math.sqrt(3 * K)]],
    ['gaussian', (values: Float32Array) => [kurtosis(values), 3, deviation(values), 1 / 8]],
  ] as const)('%s: A has its distribution', (kind, figures) => {
    const K = 1021; // odd: the last pair is cut
    const values = drawA({ kind, seed: 3, name: 'x', shape: [9 - 1, K] });
    const [first, wanted, spread, wantedSpread] = figures(values, K) as [number, number, number, number];
    expect(Math.abs(first / wanted - 1)).toBeLessThan(0.06);
    expect(Math.abs(spread / wantedSpread - 1)).toBeLessThan(0.03);
    expect(Math.abs(values.reduce((sum, x) => sum + x, 0) / values.length / wantedSpread)).toBeLessThan(0.05);
  });

  test.each([
    [{ targets: ['embed_tokens', 'q_proj'] }, {}, 'ERR_UNSUPPORTED', /model\.embed_tokens is an embedding.*lora_embedding_A/],
    [{ targets: ['input_layernorm', 'norm', 'lm_head'] }, { tied: true }, 'ERR_UNSUPPORTED', /model\.norm, as 2 more, is a norm[^]*lm_head is the output head, tied/],
    [{ targets: '.*self_attn.*' }, {}, 'ERR_UNSUPPORTED', /model\.layers\.0\.self_attn/],
    [{ targets: ['qproj'] }, {}, 'ERR_ARGUMENT', /must match a linear layer/],
    [{ rank: 0, alpha: 0, drop: 1 }, {}, 'ERR_ARGUMENT', /rank: .*\n.*alpha: .*\n.*drop: /],
    [{ seed: -1 }, {}, 'ERR_ARGUMENT', /seed/],
    [{ name: '' }, {}, 'ERR_ARGUMENT', /name/],
  ] as const)('refuses %o', (config, options, code, text) => withModel((model) => {
    const before = cpu.device.stats().tensors;
    expect(() => attachLora(model, config as AttachConfig)).toThrow(expect.objectContaining({ code, message: expect.stringMatching(text) }));
    expect([cpu.device.stats().tensors, adaptersOf(model)]).toEqual([before, []]);
  }, options));

  test('takes the usual targets of the family without any, and the head if it is named', () => withModel((model) => {
    using usual = attachLora(model, {});
    expect(usual.modules.map(({ name }) => name.split('.').at(-1))).toEqual(['q_proj', 'v_proj', 'q_proj', 'v_proj']);
    using head = attachLora(model, { name: 'head', targets: ['lm_head'] });
    expect(head.modules.map(({ name }) => name)).toEqual(['lm_head']);
  }));
});

function deviation(values: Float32Array): number {
  return Math.sqrt(values.reduce((sum, x) => sum + x * x, 0) / values.length);
}

function kurtosis(values: Float32Array): number {
  return values.reduce((sum, x) => sum + x ** 4, 0) / values.length / deviation(values) ** 4;
}

describe('several adapters on one model', () => {
  test('each changes the output in its own way, switching and disabling brings back the same bits', () => withModel(async (model) => {
    const outputs = new Map<string, Float32Array>([['base', await hiddenOf(model)]]);
    for (const [i, name] of ['one', 'two'].entries()) {
      const adapter = attachLora(model, { ...all, name, targets: i === 0 ? 'all-linear' : ['k_proj'] });
      adapter.parameters().parameters.upload(Float32Array.from(normals(adapter.parameters().size, i)));
      expect(activeAdapter(model)).toBe(adapter);
      outputs.set(name, await hiddenOf(model));
    }
    expect(new Set([...outputs.values()].map((x) => x[0])).size).toBe(3);
    for (const name of ['one', null, 'two', 'two', 'one']) {
      setAdapter(model, name);
      expect(await hiddenOf(model)).toEqual(outputs.get(name ?? 'base'));
    }
    expect(adaptersOf(model).map(({ name }) => name)).toEqual(['one', 'two']);
    adaptersOf(model)[0]!.dispose();
    expect(activeAdapter(model)).toBeNull();
    expect(await hiddenOf(model)).toEqual(outputs.get('base'));
  }));

  test('a name twice and a name of none are told', () => withModel((model) => {
    attachLora(model, all);
    expect(() => attachLora(model, all)).toThrow(/name of its own/);
    expect(() => setAdapter(model, 'other')).toThrow(/there are: default/);
  }));

  test('a disposed adapter says so', () => withModel(async (model) => {
    const adapter = attachLora(model, all);
    adapter.dispose();
    adapter.dispose();
    expect(() => adapter.parameters()).toThrow(expect.objectContaining({ code: 'ERR_DISPOSED' }));
    await expect(adapter.save(folder)).rejects.toMatchObject({ code: 'ERR_DISPOSED' });
  }));

  test('dropout masks are done in train mode only, and follow step and seed', () => withModel(async (model) => {
    const adapter = attachLora(model, { ...all, dropout: 0.5, seed: 4 });
    adapter.parameters().parameters.upload(Float32Array.from(normals(adapter.parameters().size, 1)));
    const calm = await hiddenOf(model);
    adapter.mode = 'train';
    const first = await hiddenOf(model);
    expect(first).not.toEqual(calm);
    expect(await hiddenOf(model)).toEqual(first);
    adapter.dropoutStep = 1;
    expect(await hiddenOf(model)).not.toEqual(first);
    adapter.dropoutStep = 0;
    adapter.mode = 'eval';
    expect(await hiddenOf(model)).toEqual(calm);
    const layers = model.linears.slice(0, 4).map(({ lora }) => lora?.dropout.layers);
    expect(layers).toEqual([[0, 1, 2], [3], [4, 5, 6], [7]]); // a number of its own for each module
  }));
});

describe('saving and loading', () => {
  const out = (name: string): string => path.join(folder, name);

  async function saved(model: Model, name: string, config: AttachConfig = all): Promise<Float32Array> {
    using adapter = attachLora(model, config);
    adapter.parameters().parameters.upload(Float32Array.from(normals(adapter.parameters().size, 8)));
    await adapter.save(out(name));
    return adapter.parameters().parameters.data();
  }

  test('what was saved comes back bit for bit', () => withModel(async (model) => {
    const values = await saved(model, 'round', { ...all, rankPattern: { k_proj: 3 }, useRslora: true });
    using loaded = await loadAdapter(model, out('round'));
    expect(await loaded.parameters().parameters.data()).toEqual(values);
    expect(loaded.modules.find(({ name }) => name === k)).toMatchObject({ rank: 3, scale: 6 / Math.sqrt(3) });
    expect(activeAdapter(model)).toBe(loaded);
    expect((await readdir(out('round'))).sort()).toEqual(['README.md', 'adapter_config.json', 'adapter_model.safetensors']);
  }));

  test('all-linear is written as names that other programs understand', () => withModel(async (model) => {
    await saved(model, 'names');
    const config = JSON.parse(await readFile(out('names/adapter_config.json'), 'utf8')) as Record<string, unknown>;
    expect(config).toMatchObject({ target_modules: ['q_proj', 'k_proj', 'v_proj', 'down_proj'], base_model_name_or_path: 'small', r: 2, lora_alpha: 6, fan_in_fan_out: false });
  }));

  test('a folder\'s own files and its README stay', () => withModel(async (model) => {
    await saved(model, 'mine');
    for (const name of ['README.md', 'notes.txt']) await writeFile(out(`mine/${name}`), 'mine');
    await saved(model, 'mine');
    for (const name of ['README.md', 'notes.txt']) expect(await readFile(out(`mine/${name}`), 'utf8')).toBe('mine');
  }));

  test('unknown keys of the config are kept, the base\'s name too', () => withModel(async (model) => {
    await saved(model, 'kept');
    const file = out('kept/adapter_config.json');
    const config = { ...(JSON.parse(await readFile(file, 'utf8')) as object), of_the_future: { a: [1] }, revision: 'x', base_model_name_or_path: 'hub/name' };
    await writeFile(file, JSON.stringify(config));
    using loaded = await loadAdapter(model, out('kept'));
    await loaded.save(out('kept2'));
    expect(JSON.parse(await readFile(out('kept2/adapter_config.json'), 'utf8'))).toEqual(config);
  }));

  test.each([['F16', 0x3c00, 1], ['BF16', 0xbf80, -1]] as const)('%s tensors are widened to f32', (dtype, bits, value) => withModel(async (model) => {
    await saved(model, 'narrow', { rank: 2, targets: [q] });
    const data = (count: number) => new Uint8Array(new Uint16Array(count).fill(bits).buffer);
    await writeSafetensors(out('narrow/adapter_model.safetensors'), [
      { name: adapterKey(q, 'A'), dtype, shape: [2, C], data: data(2 * C) },
      { name: adapterKey(q, 'B'), dtype, shape: [joined[0], 2], data: data(2 * joined[0]) },
    ]);
    using loaded = await loadAdapter(model, out('narrow'));
    expect(new Set(await loaded.parameters().parameters.data())).toEqual(new Set([value]));
  }));

  test('every tensor that is missing, too many or of another shape is told in one error, and nothing stays on the model', () => withModel(async (model) => {
    await saved(model, 'bad');
    const file = out('bad/adapter_model.safetensors');
    const bytes = await readFile(file);
    const header = Number(bytes.readBigUInt64LE(0));
    const { tensors } = parseSafetensorsHeader(file, bytes.subarray(8, 8 + header), bytes.length);
    const entries = [...tensors].map(([name, { dtype, shape, begin, end }]) => ({ name, dtype, shape, data: new Uint8Array(bytes.subarray(begin, end)) }));
    const without = entries.filter(({ name }) => !name.includes(k)).map((entry) => (entry.name === adapterKey(v, 'A') ? { ...entry, shape: [C, 2] } : entry));
    const more = without.map((entry) => (entry.name === adapterKey(q, 'B') ? { ...entry, dtype: 'I32' as const } : entry));
    await writeSafetensors(file, [...more, ...entries.slice(0, 2).map((entry) => ({ ...entry, name: entry.name.replace('layers.0', 'layers.7') }))]);
    const live = cpu.device.stats().tensors;
    const failure = await loadAdapter(model, out('bad')).catch((error: unknown) => error as Error);
    for (const text of [`"${k}" has no tensors`, `must be [rank, in] = [2, ${C}] (it is [${C}, 2])`, 'must be F32, F16 or BF16 (it is I32)', 'layers.7']) {
      expect((failure as Error).message).toContain(text);
    }
    expect(failure).toMatchObject({ code: 'ERR_FORMAT' });
    expect([cpu.device.stats().tensors, adaptersOf(model)]).toEqual([live, []]);
  }));

  test('an adapter of another kind of model is told with its folder', () => withModel(async (model) => {
    await saved(model, 'other');
    const file = out('other/adapter_config.json');
    await writeFile(file, (await readFile(file, 'utf8')).replaceAll('_proj', '_attn'));
    await expect(loadAdapter(model, out('other'))).rejects.toMatchObject({ code: 'ERR_ARGUMENT', message: expect.stringMatching(/other: must fit the model, a llama \(.*down_attn/) });
  }));

  test('a file that ends early, a missing file, and a pickle are told', () => withModel(async (model) => {
    await expect(loadAdapter(model, out('nowhere'))).rejects.toMatchObject({ code: 'ERR_FILE' });
    await saved(model, 'short');
    const file = out('short/adapter_model.safetensors');
    const bytes = await readFile(file);
    for (const length of [0, 7, 100, bytes.length - 1]) {
      await writeFile(file, bytes.subarray(0, length));
      await expect(loadAdapter(model, out('short'))).rejects.toMatchObject({ code: 'ERR_FORMAT' });
    }
    await rm(file);
    await writeFile(out('short/adapter_model.bin'), '');
    await expect(loadAdapter(model, out('short'))).rejects.toThrow(/pickle/);
  }));

  test('fan_in_fan_out that doesn\'t fit the base is told, and is written for a base stored [in, out]', async () => {
    await withModel((model) => saved(model, 'conv'), { order: 'in_out' });
    expect(JSON.parse(await readFile(out('conv/adapter_config.json'), 'utf8'))).toMatchObject({ fan_in_fan_out: true });
    await withModel((model) => expect(loadAdapter(model, out('conv'))).rejects.toThrow(/fan_in_fan_out must be false/));
    await withModel(async (model) => (await loadAdapter(model, out('conv'))).dispose(), { order: 'in_out' });
  });

  test('an adapter loaded without gradients has none, and says so to an optimizer', () => withModel(async (model) => {
    await saved(model, 'frozen');
    using loaded = await loadAdapter(model, out('frozen'), { trainable: false });
    expect(() => loaded.parameters().gradients).toThrow(/must be trainable/);
    expect(model.linears[0]?.lora?.da).toBeNull();
  }));

  test('a save that can\'t be done says where', () => withModel(async (model) => {
    await writeFile(out('file'), '');
    using adapter = attachLora(model, all);
    await expect(adapter.save(out('file/inside'))).rejects.toMatchObject({ code: 'ERR_FILE' });
  }));
});
