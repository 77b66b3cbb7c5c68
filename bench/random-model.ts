import { mkdtempSync, rmSync } from 'node:fs';
import { open, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { safetensorsLayout } from '../src/io/safetensors-write.ts';
import { largeModel } from './large-model.ts';
import type { ModelShape } from './shapes.ts';

type Stored = 'BF16' | 'F32';

interface Entry {
  readonly name: string;
  readonly shape: readonly number[];
}

function llamaEntries({ hidden, heads, kvHeads, intermediate, vocab, layers }: ModelShape): Entry[] {
  const keys = (kvHeads * hidden) / heads;
  const block = (i: number): Entry[] => {
    const named = (name: string, ...shape: number[]): Entry => ({ name: `model.layers.${i}.${name}.weight`, shape });
    return [
      named('input_layernorm', hidden),
      named('post_attention_layernorm', hidden),
      named('self_attn.q_proj', hidden, hidden),
      named('self_attn.k_proj', keys, hidden),
      named('self_attn.v_proj', keys, hidden),
      named('self_attn.o_proj', hidden, hidden),
      named('mlp.gate_proj', intermediate, hidden),
      named('mlp.up_proj', intermediate, hidden),
      named('mlp.down_proj', hidden, intermediate),
    ];
  };
  return [{ name: 'model.embed_tokens.weight', shape: [vocab, hidden] }, ...Array.from({ length: layers }, (_, i) => block(i)).flat(), { name: 'model.norm.weight', shape: [hidden] }];
}

// Linears are stored [in, out] (Conv1D).
function gpt2Entries({ hidden, intermediate, vocab, layers, positions }: ModelShape): Entry[] {
  const pair = (name: string, ...shape: number[]): Entry[] => [
    { name: `transformer.${name}.weight`, shape },
    { name: `transformer.${name}.bias`, shape: shape.slice(-1) },
  ];
  const block = (i: number): Entry[] => [
    ...pair(`h.${i}.ln_1`, hidden),
    ...pair(`h.${i}.attn.c_attn`, hidden, 3 * hidden),
    ...pair(`h.${i}.attn.c_proj`, hidden, hidden),
    ...pair(`h.${i}.ln_2`, hidden),
    ...pair(`h.${i}.mlp.c_fc`, hidden, intermediate),
    ...pair(`h.${i}.mlp.c_proj`, intermediate, hidden),
  ];
  const tables = [{ name: 'transformer.wte.weight', shape: [vocab, hidden] }, { name: 'transformer.wpe.weight', shape: [positions, hidden] }];
  return [...tables, ...Array.from({ length: layers }, (_, i) => block(i)).flat(), ...pair('ln_f', hidden)];
}

function configOf({ family, hidden, heads, kvHeads, intermediate, vocab, layers, positions }: ModelShape): Record<string, unknown> {
  const all = { model_type: family, tie_word_embeddings: true, vocab_size: vocab, bos_token_id: 1, eos_token_id: 2 };
  if (family === 'gpt2') {
    const noDropout = { attn_pdrop: 0, embd_pdrop: 0, resid_pdrop: 0 };
    return { ...all, ...noDropout, architectures: ['GPT2LMHeadModel'], activation_function: 'gelu_new', n_embd: hidden, n_head: heads, n_layer: layers, n_positions: positions, n_inner: intermediate, layer_norm_epsilon: 1e-5 };
  }
  return {
    ...all, architectures: ['LlamaForCausalLM'], hidden_act: 'silu', hidden_size: hidden, intermediate_size: intermediate, max_position_embeddings: positions,
    num_attention_heads: heads, num_hidden_layers: layers, num_key_value_heads: kvHeads, rms_norm_eps: 1e-5, rope_theta: 10000,
  };
}

// Numbers around 0.02 (norms: 1), the same from the start in each tensor, since only timing depends on them.
function bytesOf({ name, shape }: Entry, stored: Stored): Uint8Array {
  const f32 = new Float32Array(shape.reduce((n, dim) => n * dim, 1));
  if (shape.length === 1 && name.endsWith('.weight')) f32.fill(1);
  else fillWithNoise(f32);
  if (stored === 'F32') return new Uint8Array(f32.buffer);
  return new Uint8Array(Uint16Array.from(new Uint32Array(f32.buffer), (bits) => bits >>> 16).buffer);
}

function fillWithNoise(values: Float32Array): void {
  let state = 12345;
  for (let i = 0; i < values.length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    values[i] = (state / 2 ** 32 - 0.5) * 0.07;
  }
}

/** Writes a Hugging Face folder of this shape with random weights. */
export async function writeRandomModel(folder: string, shape: ModelShape, stored: Stored = 'BF16'): Promise<void> {
  const config = { ...configOf(shape), torch_dtype: stored === 'BF16' ? 'bfloat16' : 'float32' };
  await writeFile(path.join(folder, 'config.json'), JSON.stringify(config, null, 2));
  const entries = new Map((shape.family === 'gpt2' ? gpt2Entries(shape) : llamaEntries(shape)).map((entry) => [entry.name, entry]));
  const { header, order } = safetensorsLayout([...entries.values()].map((entry) => ({ ...entry, dtype: stored })), { format: 'pt' });
  const file = await open(path.join(folder, 'model.safetensors'), 'w');
  await file.write(header);
  for (const name of order) await file.write(bytesOf(entries.get(name) as Entry, stored));
  await file.close();
}

/**
 * Runs `body` with a temporary folder that holds such a model. Large ones, which take seconds to write, are kept for the next bench where
 * `LOWRANK_BENCH_MODELS` names a folder.
 */
export async function withRandomModel<T>(shape: ModelShape, body: (folder: string) => Promise<T>, stored: Stored = 'BF16'): Promise<T> {
  const kept = process.env['LOWRANK_BENCH_MODELS'];
  if (shape.large && kept !== undefined) return body(await largeModel(path.join(kept, shape.name.replace(/\W+/g, '-')), shape));
  const folder = mkdtempSync(path.join(tmpdir(), 'lowrank-bench-'));
  try {
    if (shape.large) await largeModel(folder, shape);
    else await writeRandomModel(folder, shape, stored);
    return await body(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}
