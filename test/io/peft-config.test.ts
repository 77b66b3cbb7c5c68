import { readdirSync, readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { hasSharedData, sharedData } from '../shared-data.ts';
import { parseAdapterConfig, serializeAdapterConfig } from '../../src/io/peft-config.ts';
import { pythonJson } from '../../src/io/python-json.ts';
import { normalizeLoraConfig } from '../../src/lora/config.ts';

const name = 'adapter_config.json';
const minimal = { peft_type: 'LORA', r: 4, lora_alpha: 8, target_modules: ['q_proj'] };
const parse = (extra: object = {}) => parseAdapterConfig(JSON.stringify({ ...minimal, ...extra }), name);

/** PEFT's own files; the scripts beside them changed only their indentation. */
const goldens = new URL('../golden/', import.meta.url);
const saved = readdirSync(goldens, { recursive: true, encoding: 'utf8' }).filter((file) => file.endsWith(name));

function rewritten(text: string): string {
  const { config, kept, baseModelNameOrPath, fanInFanOut } = parseAdapterConfig(text, name);
  return serializeAdapterConfig(config, kept, { baseModelNameOrPath, fanInFanOut });
}

describe('adapter config: reads', () => {
  test('the smallest file that PEFT reads', () => {
    expect(parse()).toEqual({
      config: normalizeLoraConfig({ rank: 4, alpha: 8, targets: ['q_proj'] }),
      baseModelNameOrPath: null, fanInFanOut: false, kept: {},
    });
    expect(parseAdapterConfig('{"peft_type":"LORA"}', name).config).toEqual(normalizeLoraConfig());
  });

  test('every setting', () => {
    const { config, fanInFanOut, baseModelNameOrPath } = parse({
      target_modules: ['c_attn'], lora_dropout: 0.05, use_rslora: true, rank_pattern: { a: 2 }, alpha_pattern: { a: 3.5 }, layers_to_transform: [0, 1],
      layers_pattern: ['h'], exclude_modules: 'x.*', init_lora_weights: 'gaussian', fan_in_fan_out: true, base_model_name_or_path: 'gpt2',
    });
    expect(config).toEqual({
      rank: 4, alpha: 8, targets: ['c_attn'], dropout: 0.05, useRslora: true, rankPattern: { a: 2 }, alphaPattern: { a: 3.5 },
      layersToTransform: [0, 1], layersPattern: ['h'], excludeModules: 'x.*', init: 'gaussian',
    });
    expect([fanInFanOut, baseModelNameOrPath]).toEqual([true, 'gpt2']);
  });

  test('null where older files have it', () => {
    expect(parse({ rank_pattern: null, alpha_pattern: null, modules_to_save: null, layers_pattern: null, use_dora: null, fan_in_fan_out: null }).config.rankPattern).toEqual({});
  });

  test('inits that are over once A and B exist, and keeps them', () => {
    for (const init of [false, 'eva', 'orthogonal']) {
      const { config, kept } = parse({ init_lora_weights: init });
      expect(config.init).toBe('kaiming');
      expect(JSON.parse(serializeAdapterConfig(config, kept))).toMatchObject({ init_lora_weights: init });
    }
  });
});

const refused: [string, unknown, RegExp][] = [
  ['peft_type', 'IA3', /peft_type "IA3" is not supported: only "LORA"/],
  ['task_type', 'SEQ_CLS', /task_type "SEQ_CLS"/],
  ['bias', 'all', /bias "all"/],
  ['use_dora', true, /use_dora true.*DoRA/],
  ['lora_bias', true, /lora_bias/],
  ['modules_to_save', ['lm_head'], /modules_to_save \["lm_head"\]/],
  ['trainable_token_indices', [1, 2], /trainable_token_indices/],
  ['layer_replication', [[0, 4], [2, 5]], /layer_replication/],
  ['target_parameters', ['experts.gate_up_proj'], /target_parameters/],
  ['alora_invocation_tokens', [1], /aLoRA/],
  ['use_qalora', true, /QA-LoRA/],
  ['use_bdlora', { nblocks: 2 }, /BD-LoRA/],
  ['kasa_config', {}, /KaSA/],
  ['monteclora_config', { num_samples: 8 }, /MonteCLoRA/],
  ['velora_config', {}, /VeLoRA/],
  ['arrow_config', {}, /Arrow/],
  ['megatron_config', {}, /Megatron/],
  ...['pissa', 'pissa_niter_4', 'olora', 'corda', 'loftq', 'lora_ga', 'mica', 'of the future'].map((init): [string, unknown, RegExp] => ['init_lora_weights', init, /changes W0 or freezes B/]),
];

describe('adapter config: refuses', () => {
  test.each(refused)('%s %j', (key, value, says) => {
    expect(() => parse({ [key]: value })).toThrow(expect.objectContaining({ code: 'ERR_UNSUPPORTED', message: expect.stringMatching(says) }));
  });

  test('all unsupported settings in one error', () => {
    const all = Object.fromEntries(refused.map(([key, value]) => [key, value]));
    const error = (() => { try { return parse(all); } catch (e) { return e as Error; } })() as Error;
    expect(error.message.split('\n')).toHaveLength(1 + Object.keys(all).length);
  });

  const wrong: [string, RegExp][] = [
    ['{', /adapter_config\.json: must be JSON/],
    ['[]', /must be an object \(it is \[\]\)/],
    ['{"r":8}', /must have "peft_type" \(it has r\)/],
    ['{"peft_type":"LORA","r":0,"lora_alpha":"x","target_modules":[]}', /r: must be[^]*lora_alpha: must be[^]*target_modules: must be/],
    ['{"peft_type":"LORA","target_modules":".*(?>q)"}', /target_modules: ".*" *.*atomic/],
    ['{"peft_type":"LORA","target_modules":".*q","layers_to_transform":[1]}', /layers_to_transform: needs a list as target_modules/],
    ['{"peft_type":"LORA","base_model_name_or_path":7,"fan_in_fan_out":"no"}', /base_model_name_or_path: must be[^]*fan_in_fan_out: must be/],
  ];
  test.each(wrong)('%s', (text, says) => {
    expect(() => parseAdapterConfig(text, name)).toThrow(expect.objectContaining({ code: 'ERR_FORMAT', message: expect.stringMatching(says) }));
  });
});

// The file PEFT 0.21 writes for LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM").
const complete = `{
  "alora_invocation_tokens": null,
  "alpha_pattern": {},
  "arrow_config": null,
  "auto_mapping": null,
  "base_model_name_or_path": null,
  "bias": "none",
  "corda_config": null,
  "ensure_weight_tying": false,
  "eva_config": null,
  "exclude_modules": null,
  "fan_in_fan_out": false,
  "inference_mode": true,
  "init_lora_weights": true,
  "kasa_config": null,
  "layer_replication": null,
  "layers_pattern": null,
  "layers_to_transform": null,
  "loftq_config": {},
  "lora_alpha": 8,
  "lora_bias": false,
  "lora_dropout": 0.0,
  "lora_ga_config": null,
  "megatron_config": null,
  "megatron_core": "megatron.core",
  "modules_to_save": null,
  "monteclora_config": null,
  "peft_type": "LORA",
  "peft_version": "0.21.0",
  "qalora_group_size": 16,
  "r": 4,
  "rank_pattern": {},
  "revision": null,
  "target_modules": [
    "q_proj",
    "v_proj"
  ],
  "target_parameters": null,
  "task_type": "CAUSAL_LM",
  "trainable_token_indices": null,
  "use_bdlora": null,
  "use_dora": false,
  "use_qalora": false,
  "use_rslora": false,
  "velora_config": null
}`;

describe('adapter config: writes', () => {
  test('the bytes that PEFT writes', () => {
    expect(serializeAdapterConfig(normalizeLoraConfig({ rank: 4, targets: ['q_proj', 'v_proj'] }))).toBe(complete);
  });

  test.each(saved)('%s back with the same content', (file) => {
    const text = readFileSync(new URL(file, goldens), 'utf8');
    expect(JSON.parse(rewritten(text))).toEqual(JSON.parse(text));
  });

  test('the goldens hold rsLoRA, patterns and fan_in_fan_out', () => {
    const texts = saved.map((file) => readFileSync(new URL(file, goldens), 'utf8')).join('');
    for (const what of [/"use_rslora": true/, /"rank_pattern": \{\s*"/, /"fan_in_fan_out": true/, /"layers_to_transform": \[/]) expect(texts).toMatch(what);
  });

  test.skipIf(!hasSharedData)('real adapters back byte for byte', () => {
    for (const run of ['tiny_all_linear', 'tiny_qv_masked']) {
      const text = readFileSync(sharedData('parity', run, 'final_adapter', name), 'utf8');
      expect(rewritten(text)).toBe(text);
    }
  });

  test('unknown keys come back, the runtime ones do not', () => {
    const text = rewritten(JSON.stringify({ ...minimal, zeta_of_2030: { b: [1, 'é'], a: {} }, runtime_config: { x: 1 }, revision: 'main', task_type: null, eva_config: { rho: 2, tau: 0.99 } }));
    const back = JSON.parse(text) as Record<string, unknown>;
    expect(back).toMatchObject({ zeta_of_2030: { b: [1, 'é'], a: {} }, revision: 'main', task_type: null });
    expect(back).not.toHaveProperty('runtime_config');
    expect(text).toContain('"rho": 2.0');
  });

  test('what the caller says of base, task and targets', () => {
    const config = normalizeLoraConfig({ targets: 'all-linear' });
    const text = serializeAdapterConfig(config, { task_type: null }, { baseModelNameOrPath: './m', fanInFanOut: true, taskType: 'CAUSAL_LM', targets: ['c_fc'] });
    expect(JSON.parse(text)).toMatchObject({ base_model_name_or_path: './m', fan_in_fan_out: true, task_type: 'CAUSAL_LM', target_modules: ['c_fc'] });
  });

  test('patterns in the order given, for the first that fits wins', () => {
    const text = serializeAdapterConfig(normalizeLoraConfig({ rankPattern: { 'z.q_proj': 2, q_proj: 3 } }));
    expect(Object.keys(parseAdapterConfig(text, name).config.rankPattern)).toEqual(['z.q_proj', 'q_proj']);
  });
});

describe('Python JSON', () => {
  const cases: [unknown, string][] = [
    [{}, '{}'],
    [{ b: [], a: [1, [2]] }, '{\n  "a": [\n    1,\n    [\n      2\n    ]\n  ],\n  "b": []\n}'],
    ['é\u{1f600}\u007f"\\\n/', '"\\u00e9\\ud83d\\ude00\\u007f\\"\\\\\\n/"'],
    [{ '\u{1f600}': 1, '\uffee': 2 }, '{\n  "\\uffee": 2,\n  "\\ud83d\\ude00": 1\n}'],
    [1e-5, '1e-05'], [0.0001, '0.0001'], [1.5e-7, '1.5e-07'], [0.1, '0.1'], [1e21, '1000000000000000000000'], [123.25, '123.25'],
    [{ f: [0, -0, 5, 1e16, 1e15, 1.5e300] }, '{\n  "f": [\n    0.0,\n    -0.0,\n    5.0,\n    1e+16,\n    1000000000000000.0,\n    1.5e+300\n  ]\n}'],
    [[NaN, -Infinity], '[\n  NaN,\n  -Infinity\n]'],
    [[true, null, undefined], '[\n  true,\n  null,\n  null\n]'],
  ];
  test.each(cases)('%j', (value, text) => {
    expect(pythonJson(value, { floats: ['f'] })).toBe(text);
  });
});
