import { open, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { safetensorsLayout } from '../src/io/safetensors-write.ts';
import type { ModelShape } from './shapes.ts';

interface Entry {
  readonly name: string;
  readonly dtype: 'BF16' | 'F16' | 'F32';
  readonly shape: readonly number[];
}

function entries(shape: ModelShape, dtype: Entry['dtype']): Entry[] {
  const { hidden, heads, kvHeads, intermediate, vocab, layers } = shape;
  const headSize = hidden / heads;
  const matrix = (name: string, out: number, into: number): Entry => ({ name, dtype, shape: [out, into] });
  const vector = (name: string): Entry => ({ name, dtype, shape: [hidden] });
  const block = (i: number): Entry[] => {
    const at = `model.layers.${i}`;
    return [
      vector(`${at}.input_layernorm.weight`),
      vector(`${at}.post_attention_layernorm.weight`),
      matrix(`${at}.self_attn.q_proj.weight`, hidden, hidden),
      matrix(`${at}.self_attn.k_proj.weight`, kvHeads * headSize, hidden),
      matrix(`${at}.self_attn.v_proj.weight`, kvHeads * headSize, hidden),
      matrix(`${at}.self_attn.o_proj.weight`, hidden, hidden),
      matrix(`${at}.mlp.gate_proj.weight`, intermediate, hidden),
      matrix(`${at}.mlp.up_proj.weight`, intermediate, hidden),
      matrix(`${at}.mlp.down_proj.weight`, hidden, intermediate),
    ];
  };
  return [matrix('model.embed_tokens.weight', vocab, hidden), ...Array.from({ length: layers }, (_, i) => block(i)).flat(), vector('model.norm.weight')];
}

// 16-bit patterns of numbers around 0.02 (norms: 1); a short random run repeated, since only timing depends on them.
function bytesOf(entry: Entry): Uint8Array {
  const count = entry.shape.reduce((n, dim) => n * dim, 1);
  const f32 = new Float32Array(count);
  let state = 12345;
  for (let i = 0; i < count; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    f32[i] = entry.shape.length === 1 ? 1 : (state / 2 ** 32 - 0.5) * 0.07;
  }
  if (entry.dtype === 'F32') return new Uint8Array(f32.buffer);
  return new Uint8Array(Uint16Array.from(new Uint32Array(f32.buffer), (bits) => bits >>> 16).buffer);
}

/** Writes a Llama folder of this shape with random bf16 (or f32) weights and tied embeddings. */
export async function writeRandomModel(folder: string, shape: ModelShape, dtype: 'BF16' | 'F32' = 'BF16'): Promise<void> {
  const config = {
    architectures: ['LlamaForCausalLM'], model_type: 'llama', hidden_act: 'silu', hidden_size: shape.hidden, intermediate_size: shape.intermediate,
    max_position_embeddings: 2048, num_attention_heads: shape.heads, num_hidden_layers: shape.layers, num_key_value_heads: shape.kvHeads,
    rms_norm_eps: 1e-5, rope_theta: 10000, tie_word_embeddings: true, vocab_size: shape.vocab, torch_dtype: dtype === 'BF16' ? 'bfloat16' : 'float32',
    bos_token_id: 1, eos_token_id: 2,
  };
  await writeFile(path.join(folder, 'config.json'), JSON.stringify(config, null, 2));
  const all = entries(shape, dtype);
  const { header, order } = safetensorsLayout(all.map((entry) => ({ ...entry, shape: [...entry.shape] })), { format: 'pt' });
  const file = await open(path.join(folder, 'model.safetensors'), 'w');
  await file.write(header);
  const byName = new Map(all.map((entry) => [entry.name, entry]));
  for (const name of order) await file.write(bytesOf(byName.get(name) as Entry));
  await file.close();
}
