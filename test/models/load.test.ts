import { rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Device, openDevice } from '../../src/device.ts';
import type { ErrorCode } from '../../src/error.ts';
import { loadModel } from '../../src/models/load.ts';
import { f32, goldenPath, i32, readTensors } from '../golden/read.ts';
import { brokenFolder, type Damage } from './broken-folder.ts';
import { cachedLogits, live, logitsOf, worst } from './run.ts';

let device: Device;
beforeAll(async () => {
  device = await openDevice('cpu');
});
afterAll(() => device.close());

interface Hostile extends Damage {
  what: string;
  model: string;
  code: ErrorCode;
  /** What the text must say, all of it. */
  says: string[];
}

const key = (name: string) => `model.layers.${name}`;

const hostile: Hostile[] = [
  { what: 'a folder without config.json', model: 'llama_tied', folder: (f) => rmSync(path.join(f, 'config.json')), code: 'ERR_FILE', says: ['config.json: must be readable', 'ENOENT'] },
  { what: 'a config.json that is no JSON', model: 'llama_tied', folder: (f) => writeFileSync(path.join(f, 'config.json'), '{"a":'), code: 'ERR_FORMAT', says: ['config.json: must be JSON'] },
  { what: 'a config.json that is a list', model: 'llama_tied', folder: (f) => writeFileSync(path.join(f, 'config.json'), '[1]'), code: 'ERR_FORMAT', says: ['must be a JSON object (found an array)'] },
  { what: 'an unknown model_type', model: 'llama_tied', config: { model_type: 'mamba' }, code: 'ERR_UNSUPPORTED', says: ['llama, mistral, qwen2, qwen3, gpt2', '"mamba"'] },
  { what: 'a missing model_type', model: 'llama_tied', config: { model_type: undefined }, code: 'ERR_UNSUPPORTED', says: ['"model_type" must be one of', 'it is missing'] },
  {
    what: 'every unsupported setting at once',
    model: 'llama_tied',
    config: { hidden_act: 'gelu', quantization_config: { quant_method: 'gptq' }, pretraining_tp: 2, num_local_experts: 8, rope_parameters: { rope_type: 'su' }, layer_types: ['linear_attention'] },
    code: 'ERR_UNSUPPORTED',
    says: ['"hidden_act" must be "silu"', 'gptq', '"pretraining_tp" must be 1', 'mixtures of experts', '"rope_parameters.rope_type"', '"layer_types"'],
  },
  {
    what: 'sizes that are missing, negative, of text, or don\'t divide',
    model: 'llama_tied',
    config: { hidden_size: undefined, vocab_size: -1, num_hidden_layers: '2', num_attention_heads: 4, num_key_value_heads: 3, rms_norm_eps: 'small', tie_word_embeddings: 1 },
    code: 'ERR_FORMAT',
    says: ['"hidden_size"', '"vocab_size"', '"num_hidden_layers"', 'a multiple of "num_key_value_heads" (4 and 3)', '"rms_norm_eps"', '"tie_word_embeddings"'],
  },
  { what: 'a window in a Llama', model: 'llama_tied', config: { layer_types: ['sliding_attention', 'full_attention'] }, code: 'ERR_UNSUPPORTED', says: ['"layer_types" must hold only full_attention'] },
  { what: 'layer types of too few layers', model: 'qwen3', config: { layer_types: ['full_attention'] }, code: 'ERR_FORMAT', says: ['"layer_types" must have 2 entries'] },
  {
    what: 'GPT-2 with settings of its variants',
    model: 'gpt2',
    config: { activation_function: 'relu', scale_attn_by_inverse_layer_idx: true, add_cross_attention: true, n_head: 5 },
    code: 'ERR_UNSUPPORTED',
    says: ['gelu_new', '"scale_attn_by_inverse_layer_idx" must be false', '"add_cross_attention" must be false', 'a multiple of "n_head"'],
  },
  {
    what: 'missing, misshapen and odd tensors, all told at once',
    model: 'llama_tied',
    weights(tensors) {
      tensors.delete(key('0.self_attn.k_proj.weight'));
      tensors.delete('model.norm.weight');
      tensors.get(key('1.mlp.up_proj.weight'))!.shape = [40, 31];
      tensors.get(key('1.input_layernorm.weight'))!.shape = [32, 1];
      tensors.get(key('0.mlp.down_proj.weight'))!.dtype = 'F64';
      tensors.get(key('1.self_attn.v_proj.weight'))!.dtype = 'F16';
      tensors.set(key('1.self_attn.q_proj.weight_scale'), { dtype: 'F32', shape: [1], data_offsets: [0, 4] });
    },
    code: 'ERR_FORMAT',
    says: [
      `"${key('0.self_attn.k_proj.weight')}" must be there`,
      '"model.norm.weight" must be there',
      `"${key('1.mlp.up_proj.weight')}" must be [40, 32] (it is [40, 31])`,
      `"${key('1.input_layernorm.weight')}" must be [32] (it is [32, 1])`,
      `"${key('0.mlp.down_proj.weight')}" must be F32, F16 or BF16 (it is F64)`,
      'must have one dtype (q_proj F32, k_proj F32, v_proj F16)',
      `"${key('1.self_attn.q_proj.weight_scale')}" has no place`,
    ],
  },
  { what: 'an untied model without its head', model: 'llama_tied', config: { tie_word_embeddings: false }, code: 'ERR_FORMAT', says: ['"lm_head.weight" must be there'] },
  { what: 'biases that the configuration promises', model: 'llama_tied', config: { attention_bias: true }, code: 'ERR_FORMAT', says: ['q_proj.bias" must be there', 'o_proj.bias" must be there'] },
  { what: 'biases that the configuration doesn\'t know', model: 'llama_bias', config: { attention_bias: false }, code: 'ERR_FORMAT', says: ['q_proj.bias" has no place'] },
  { what: 'a configuration of more layers than there are', model: 'llama_tied', config: { num_hidden_layers: 3 }, code: 'ERR_FORMAT', says: [key('2.self_attn.q_proj.weight'), 'it is missing'] },
  {
    what: 'a shard that was cut off',
    model: 'llama_bf16_sharded',
    folder: (f) => truncateSync(path.join(f, 'model-00001-of-00003.safetensors'), statSync(path.join(f, 'model-00001-of-00003.safetensors')).size - 100),
    code: 'ERR_FORMAT',
    says: ['model-00001-of-00003.safetensors', 'but the file has'],
  },
  { what: 'a shard that is missing', model: 'llama_bf16_sharded', folder: (f) => rmSync(path.join(f, 'model-00002-of-00003.safetensors')), code: 'ERR_FORMAT', says: ['"model-00002-of-00003.safetensors" is missing'] },
  { what: 'a folder without weights', model: 'llama_tied', folder: (f) => rmSync(path.join(f, 'model.safetensors')), code: 'ERR_FILE', says: ['must hold model.safetensors'] },
];

describe('loadModel refuses', () => {
  test.each(hostile)('$what', async ({ model, code, says, ...damage }) => {
    const before = live(device);
    const folder = brokenFolder(model, damage);
    try {
      const error = (await loadModel(folder.path, { device }).then(() => null, (fault: unknown) => fault)) as { code: string; message: string } | null;
      expect(error?.message).toBeDefined();
      for (const words of says) expect(error?.message).toContain(words);
      expect(error?.code).toBe(code);
    } finally {
      folder.remove();
    }
    expect(live(device)).toBe(before);
  });

  test('a dtype it can\'t convert to', async () => {
    await expect(loadModel(goldenPath('families', 'llama_tied'), { device, weights: 'int8' as 'f16' })).rejects.toMatchObject({ code: 'ERR_ARGUMENT' });
  });
});

async function goldenGap(name: string, folder: string, weights?: 'f16' | 'f32'): Promise<number> {
  const golden = readTensors('families', name, 'golden.safetensors');
  const ids = i32(golden, 'input_ids');
  const model = await loadModel(folder, { device, ...(weights === undefined ? {} : { weights }) });
  try {
    return worst(await logitsOf(model, [ids.subarray(0, ids.length / 2), ids.subarray(ids.length / 2)]), f32(golden, 'logits'));
  } finally {
    model.dispose();
  }
}

describe('loadModel takes', () => {
  test.each([
    { name: 'gpt2', prefix: 'transformer.' },
    { name: 'llama_tied', prefix: 'model.' },
  ])('the base model\'s names, without $prefix', async ({ name, prefix }) => {
    const folder = brokenFolder(name, {
      weights(tensors) {
        for (const [old, entry] of [...tensors]) {
          tensors.delete(old);
          tensors.set(old.replace(prefix, ''), entry);
        }
      },
    });
    expect(await goldenGap(name, folder.path)).toBeLessThan(2e-4);
    folder.remove();
  });

  test('tensors at odd offsets, and buffers that older transformers stored', async () => {
    const folder = brokenFolder('llama_tied', {
      weights(tensors) {
        const kept = [...tensors];
        tensors.clear();
        tensors.set('model.layers.0.self_attn.rotary_emb.inv_freq', { dtype: 'I8', shape: [3], data_offsets: [0, 3] });
        for (const [name, entry] of kept) tensors.set(name, entry);
      },
    });
    expect(await goldenGap('llama_tied', folder.path)).toBeLessThan(2e-4);
    folder.remove();
  });

  test('a bias of some parts only: that of the others is zero', async () => {
    const bias = (part: string) => `model.layers.0.self_attn.${part}.bias`;
    const without = (parts: readonly string[]) => brokenFolder('llama_bias', { weights: (tensors) => parts.forEach((part) => tensors.delete(bias(part))) });
    const zeroed = brokenFolder('llama_bias', {
      weights(tensors) {
        const entry = tensors.get(bias('k_proj'))!;
        tensors.set(bias('k_proj'), { ...entry, data_offsets: [entry.data_offsets[0], entry.data_offsets[0]] }); // its bytes become zeros
      },
    });
    const partly = without(['k_proj']);
    const zeros = await goldenGap('llama_bias', zeroed.path);
    // Memory that is given out again is not clean.
    device.tensor(new Float32Array(2 ** 18).fill(NaN)).dispose();
    const [absent, whole] = [await goldenGap('llama_bias', partly.path), await goldenGap('llama_bias', goldenPath('families', 'llama_bias'))];
    expect(absent).toBe(zeros);
    expect(whole).toBeLessThan(2e-4);
    zeroed.remove();
    partly.remove();
  });

  test('parts of several dtypes, when one is asked for', async () => {
    const folder = brokenFolder('qwen2_f16', { weights: (tensors) => void (tensors.get(key('0.self_attn.q_proj.weight'))!.dtype = 'BF16') });
    await expect(loadModel(folder.path, { device })).rejects.toMatchObject({ code: 'ERR_FORMAT' });
    const model = await loadModel(folder.path, { device, weights: 'f16' });
    expect(model.facts.dtype).toBe('f16');
    model.dispose();
    folder.remove();
  });

  test('16-bit weights as f32, with the same logits', async () => {
    expect(await goldenGap('qwen2_f16', goldenPath('families', 'qwen2_f16'), 'f32')).toBeLessThan(2e-4);
  });
});

describe('a model', () => {
  test('tells a token id outside the vocabulary at the fence, and works on', async () => {
    const model = await loadModel(goldenPath('families', 'llama_tied'), { device });
    await logitsOf(model, [[1, 2]]);
    const before = live(device);
    for (const id of [96, -1, 2 ** 31 - 1]) await expect(logitsOf(model, [[1, id, 2]])).rejects.toMatchObject({ code: 'ERR_RANGE' });
    expect(live(device)).toBe(before);
    expect((await logitsOf(model, [[1, 95]])).every(Number.isFinite)).toBe(true);
    model.dispose();
  });

  test('has a cache that can\'t overflow', async () => {
    const model = await loadModel(goldenPath('families', 'llama_tied'), { device });
    const before = live(device);
    const cache = model.newCache(3);
    model.decode([1, 2], cache).dispose();
    expect(() => model.decode([3, 4], cache)).toThrow(expect.objectContaining({ code: 'ERR_RANGE', message: expect.stringContaining('holds 3 positions') as string }));
    expect(() => model.decode([], cache)).toThrow(expect.objectContaining({ code: 'ERR_ARGUMENT' }));
    expect(() => model.decode([1.5], cache)).toThrow(expect.objectContaining({ code: 'ERR_RANGE' }));
    expect(cache.length).toBe(2);
    cache.dispose();
    cache.dispose();
    for (const capacity of [0, -1, 1.5, NaN]) expect(() => model.newCache(capacity)).toThrow(expect.objectContaining({ code: 'ERR_ARGUMENT' }));
    await device.fence();
    expect(live(device)).toBeLessThanOrEqual(before + 1); // the rope table that the first run made
    model.dispose();
  });

  test.each(['llama_rope_dynamic', 'llama_rope_longrope'])('of %s doesn\'t remember the lengths of what ran before', async (name) => {
    const golden = readTensors('families', name, 'golden.safetensors');
    const [ids, want] = [i32(golden, 'input_ids'), f32(golden, 'logits')];
    const sequences = [ids.subarray(0, ids.length / 2), ids.subarray(ids.length / 2)];
    const [used, fresh] = [await loadModel(goldenPath('families', name), { device }), await loadModel(goldenPath('families', name), { device })];
    for (const length of [16, 20, 40, 13, 30, 25, 26, 27, 28, 29]) await logitsOf(used, [Array.from({ length }, (_, i) => i)]);
    expect(worst(await logitsOf(used, sequences), want)).toBeLessThan(2e-4);
    const short = [3, 1, 4, 1, 5, 9, 2, 6];
    expect(await logitsOf(used, [short])).toEqual(await logitsOf(fresh, [short]));
    used.dispose();
    fresh.dispose();
  });

  test('of twelve blocks takes no more memory to run than one of two', async () => {
    const peakOf = async (layers: number): Promise<number> => {
      const folder = brokenFolder('llama_tied', {
        config: { num_hidden_layers: layers },
        weights(tensors) {
          for (const [name, entry] of [...tensors].filter(([each]) => each.startsWith('model.layers.0.'))) {
            for (let layer = 2; layer < layers; layer++) tensors.set(name.replace('.0.', `.${layer}.`), entry);
          }
        },
      });
      const model = await loadModel(folder.path, { device });
      const ids = Array.from({ length: 64 }, (_, i) => i);
      await logitsOf(model, [ids]);
      device.resetPeak();
      const before = device.stats().liveBytes;
      await logitsOf(model, [ids]);
      const peak = device.stats().peakBytes - before;
      model.dispose();
      folder.remove();
      return peak;
    };
    expect(await peakOf(12)).toBe(await peakOf(2));
  });

  test('of learned positions refuses a longer sequence at once', async () => {
    const model = await loadModel(goldenPath('families', 'gpt2'), { device });
    await expect(logitsOf(model, [Array.from({ length: 33 }, () => 3)])).rejects.toMatchObject({ code: 'ERR_RANGE', message: expect.stringContaining('may have 32 positions') as string });
    expect(() => model.newCache(33)).toThrow(expect.objectContaining({ code: 'ERR_RANGE' }));
    expect(await cachedLogits(model, Array.from({ length: 32 }, () => 3), [32])).toHaveLength(32 * 96);
    model.dispose();
  });

  test('is of no use after dispose, which may come twice', async () => {
    const before = live(device);
    const model = await loadModel(goldenPath('families', 'qwen3'), { device });
    await logitsOf(model, [[1, 2, 3]]);
    model.dispose();
    model.dispose();
    expect(live(device)).toBe(before);
    await expect(logitsOf(model, [[1]])).rejects.toMatchObject({ code: 'ERR_DISPOSED' });
    expect(() => model.newCache(1)).toThrow(expect.objectContaining({ code: 'ERR_DISPOSED' }));
  });
});
