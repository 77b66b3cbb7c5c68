import { describe, expect, test } from 'vitest';
import { existsSync, readdirSync } from 'node:fs';
import { f32, goldenPath, i32, readJson, readTensors, type FamilyGolden, type GoldenTensor } from '../golden/read.ts';
import { attention } from './attention.ts';
import { embedding } from './embedding.ts';
import { worst } from './finite-difference.ts';
import { gelu } from './gelu.ts';
import { bf16Value, f16Value } from './half.ts';
import { layerNorm } from './layer_norm.ts';
import { linear } from './linear.ts';
import { loraLinear } from './lora_linear.ts';
import { qkNorm } from './qk_norm.ts';
import { rmsNorm } from './rms_norm.ts';
import { rope, ropeTable } from './rope.ts';
import { swiglu } from './swiglu.ts';

// Whole models put together from the oracle's ops, held to transformers' logits: shows that the ops' layouts and
// conventions (joined projections, head order, window, rotation) are the models' own.

type Weights = Map<string, Float64Array>;
type Config = Record<string, number | boolean | null | undefined> & { layer_types?: string[]; torch_dtype?: string; dtype?: string };

function wide({ data }: GoldenTensor, dtype: string | undefined): Float64Array {
  if (!(data instanceof Uint16Array)) return Float64Array.from(data);
  return Float64Array.from(data, dtype === 'bfloat16' ? bf16Value : f16Value);
}

/** All tensors of a folder's safetensors files, in f64, and its config. */
function readModel(name: string): { weights: Weights; config: Config } {
  const config = readJson<Config>('families', name, 'config.json');
  const files = readdirSync(goldenPath('families', name)).filter((file) => /^model.*\.safetensors$/.test(file));
  const tensors = files.flatMap((file) => [...readTensors('families', name, file)]);
  return { weights: new Map(tensors.map(([key, tensor]) => [key, wide(tensor, config.torch_dtype ?? config.dtype)])), config };
}

function get(weights: Weights, key: string): Float64Array {
  const found = weights.get(key);
  if (!found) throw new Error(`no weight "${key}" (there are: ${[...weights.keys()].join(', ')})`);
  return found;
}

/** The linears under `prefix` as one packed lora_linear; an adapter, where given, has rank 3 and alpha 7 everywhere. */
function joined(weights: Weights, adapter: Weights | undefined, prefix: string, names: string[], x: Float64Array, T: number): Float64Array {
  const K = x.length / T;
  const flat = (arrays: (Float64Array | undefined)[]) => Float64Array.from(arrays.flatMap((a) => [...(a ?? [])]));
  const W = names.map((name) => get(weights, `${prefix}${name}.weight`));
  const lora = (half: string) => names.map((name) => adapter && get(adapter, `base_model.model.${prefix}${name}.lora_${half}.weight`));
  const biases = names.map((name) => weights.get(`${prefix}${name}.bias`));
  const b = biases.some(Boolean) ? flat(biases.map((bias, i) => bias ?? new Float64Array(W[i]!.length / K))) : undefined;
  const parts = W.map((w) => ({ N: w.length / K, r: adapter ? 3 : 0, s: 7 / 3, layer: 0 }));
  return loraLinear({ x, W: flat(W), b, A: flat(lora('A')), B: flat(lora('B')), parts, T, K }).y;
}

const plus = (a: Float64Array, b: Float64Array) => a.map((value, i) => value + b[i]!);

function llamaLogits(weights: Weights, adapter: Weights | undefined, config: Config, ids: Int32Array): Float64Array {
  const T = ids.length;
  const number = (key: string, otherwise?: number) => (config[key] as number | undefined) ?? otherwise ?? NaN;
  const [C, H, G, F] = [number('hidden_size'), number('num_attention_heads'), number('num_key_value_heads'), number('intermediate_size')];
  const D = number('head_dim', C / H);
  const eps = number('rms_norm_eps');
  const norm = (x: Float64Array, key: string) => rmsNorm({ x, w: get(weights, key), N: T, C, eps }).y;
  const parameters = (config as { rope_parameters?: { rope_theta: number } }).rope_parameters;
  const table = ropeTable({ P: T, D, theta: parameters?.rope_theta ?? number('rope_theta') });
  const positions = Array.from(ids, (_, t) => t);
  const head = weights.get('lm_head.weight') ?? get(weights, 'model.embed_tokens.weight');

  let x = embedding({ ids, table: get(weights, 'model.embed_tokens.weight'), T, C });
  for (let layer = 0; layer < number('num_hidden_layers'); layer++) {
    const at = `model.layers.${layer}.`;
    const project = (names: string[], from: Float64Array) => joined(weights, adapter, at, names, from, T);
    let qkv = project(['q', 'k', 'v'].map((part) => `self_attn.${part}_proj`), norm(x, `${at}input_layernorm.weight`));
    const wq = weights.get(`${at}self_attn.q_norm.weight`);
    if (wq) qkv = qkNorm({ x: qkv, wq, wk: get(weights, `${at}self_attn.k_norm.weight`), T, H, G, D, eps }).y;
    const rotated = rope({ x: qkv, positions, table, T, H, G, D });
    const window = windowOf(config, layer);
    const mixed = attention({ qkv: rotated, offsets: [0, T], T, H, G, D, window, scale: D ** -0.5 }).y;
    x = plus(x, project(['self_attn.o_proj'], mixed));
    const gateUp = project(['mlp.gate_proj', 'mlp.up_proj'], norm(x, `${at}post_attention_layernorm.weight`));
    x = plus(x, project(['mlp.down_proj'], swiglu({ x: gateUp, T, F })));
  }
  return linear({ x: norm(x, 'model.norm.weight'), W: head, T, N: head.length / C, K: C });
}

/** Sliding window of a layer: Mistral's everywhere, Qwen's from layer `max_window_layers` on, if it is switched on. */
function windowOf(config: Config, layer: number): number {
  if ('use_sliding_window' in config && (!config.use_sliding_window || layer < (config.max_window_layers as number))) return 0;
  return (config.sliding_window as number | null | undefined) ?? 0;
}

function gpt2Logits(weights: Weights, adapter: Weights | undefined, config: Config, ids: Int32Array): Float64Array {
  const T = ids.length;
  const [C, H] = [config.n_embd as number, config.n_head as number];
  const w = transposed(weights);
  const norm = (x: Float64Array, key: string) =>
    layerNorm({ x, w: get(w, `${key}.weight`), b: get(w, `${key}.bias`), N: T, C, eps: config.layer_norm_epsilon as number }).y;
  const kind = (config as unknown as { activation_function: string }).activation_function === 'gelu' ? 'erf' : 'tanh';
  const wte = get(w, 'transformer.wte.weight');
  let x = embedding({ ids, table: wte, positions: Array.from(ids, (_, t) => t), positionTable: get(w, 'transformer.wpe.weight'), T, C });
  for (let layer = 0; layer < (config.n_layer as number); layer++) {
    const at = `transformer.h.${layer}.`;
    const project = (name: string, from: Float64Array) => joined(w, adapter, at, [name], from, T);
    const qkv = project('attn.c_attn', norm(x, `${at}ln_1`));
    const mixed = attention({ qkv, offsets: [0, T], T, H, G: H, D: C / H, window: 0, scale: (C / H) ** -0.5 }).y;
    x = plus(x, project('attn.c_proj', mixed));
    x = plus(x, project('mlp.c_proj', gelu({ x: project('mlp.c_fc', norm(x, `${at}ln_2`)), kind })));
  }
  return linear({ x: norm(x, 'transformer.ln_f'), W: wte, T, N: wte.length / C, K: C });
}

/** GPT-2 stores its linears as [K, N]; the oracle reads [N, K]. N is the length of the bias beside. */
function transposed(weights: Weights): Weights {
  return new Map([...weights].map(([key, w]) => {
    if (!/\.c_(attn|proj|fc)\.weight$/.test(key)) return [key, w];
    const N = get(weights, key.replace(/weight$/, 'bias')).length;
    const K = w.length / N;
    return [key, w.map((_, i) => w[(i % K) * N + Math.floor(i / K)]!)];
  }));
}

const { families } = readJson<{ families: FamilyGolden[] }>('families', 'index.json');
const plain = families.filter(({ name, ropeType }) => ropeType === 'default' && existsSync(goldenPath('families', name, 'config.json')));

describe.each(plain)('$name from the oracle\'s ops', ({ name, modelType, T, tolerance }) => {
  const { weights, config } = readModel(name);
  const golden = readTensors('families', name, 'golden.safetensors');
  const tensors = readTensors('families', name, 'adapter', 'adapter_model.safetensors');
  const adapter = new Map([...tensors].map(([key, tensor]) => [key, wide(tensor, undefined)]));
  const logitsOf = modelType === 'gpt2' ? gpt2Logits : llamaLogits;

  test.each([
    { what: 'logits', lora: undefined },
    { what: 'logits_adapter', lora: adapter },
  ])('gives the $what of transformers and PEFT', ({ what, lora }) => {
    const ids = i32(golden, 'input_ids');
    const rows = [ids.slice(0, T), ids.slice(T)].flatMap((row) => [...logitsOf(weights, lora, config, row)]);
    expect(worst(rows, f32(golden, what))).toBeLessThan(tolerance.logits);
  });
});
