import { existsSync } from 'node:fs';
import { type FileHandle, mkdir, open, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { safetensorsLayout, type TensorSpec } from '../src/io/safetensors-write.ts';
import type { ModelShape } from './shapes.ts';

/** Llama 2 7B. */
export const llama7b: ModelShape = {
  family: 'llama', name: "Llama-7B's shape", hidden: 4096, layers: 32, heads: 32, kvHeads: 32, intermediate: 11008, vocab: 32000, positions: 4096,
  tied: false, large: true,
};

const shardBytes = 5e9; // as transformers cuts them
const chunkBytes = 16 << 20;
const bytesOf = ({ shape }: TensorSpec): number => 2 * shape.reduce((n, dim) => n * dim, 1);

/** All tensors in the order in which transformers names them. */
function tensorsOf({ hidden, layers, heads, kvHeads, intermediate, vocab, tied = true }: ModelShape): TensorSpec[] {
  const keyRows = (hidden / heads) * kvHeads;
  const tensor = (name: string, ...shape: number[]): TensorSpec => ({ name: `${name}.weight`, dtype: 'BF16', shape });
  const block = (at: string): TensorSpec[] => [
    tensor(`${at}.input_layernorm`, hidden),
    tensor(`${at}.mlp.down_proj`, hidden, intermediate),
    tensor(`${at}.mlp.gate_proj`, intermediate, hidden),
    tensor(`${at}.mlp.up_proj`, intermediate, hidden),
    tensor(`${at}.post_attention_layernorm`, hidden),
    tensor(`${at}.self_attn.k_proj`, keyRows, hidden),
    tensor(`${at}.self_attn.o_proj`, hidden, hidden),
    tensor(`${at}.self_attn.q_proj`, hidden, hidden),
    tensor(`${at}.self_attn.v_proj`, keyRows, hidden),
  ];
  const blocks = Array.from({ length: layers }, (_, i) => block(`model.layers.${i}`)).flat();
  return [tensor('model.embed_tokens', vocab, hidden), ...blocks, tensor('model.norm', hidden), ...(tied ? [] : [tensor('lm_head', vocab, hidden)])];
}

/** Tensors in order, a new shard where one would become too long. */
function shardsOf(tensors: readonly TensorSpec[], limit: number): TensorSpec[][] {
  const shards: TensorSpec[][] = [[]];
  let bytes = 0;
  for (const tensor of tensors) {
    if (bytes + bytesOf(tensor) > limit && bytes > 0) {
      shards.push([]);
      bytes = 0;
    }
    shards.at(-1)?.push(tensor);
    bytes += bytesOf(tensor);
  }
  return shards;
}

let state = 0x9e3779b9;

/** Pairs of bf16 numbers: any sign, magnitudes in [2^-7, 2^-5), so that their mean square is that of weights of 0.019. */
function fillRandom(words: Uint32Array): void {
  for (let i = 0; i < words.length; i++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    words[i] = (state & 0x80ff80ff) | 0x3c003c00;
  }
}

async function writeTensor(file: FileHandle, tensor: TensorSpec, chunk: Uint32Array): Promise<void> {
  for (let left = bytesOf(tensor); left > 0; left -= chunkBytes) {
    const part = chunk.subarray(0, Math.min(left, chunkBytes) / 4);
    if (tensor.shape.length === 1) part.fill(0x3f803f80); // a norm: 1
    else fillRandom(part);
    await file.write(new Uint8Array(part.buffer, 0, part.byteLength));
  }
}

async function writeShard(file: string, tensors: readonly TensorSpec[]): Promise<void> {
  const { header, order } = safetensorsLayout(tensors, { format: 'pt' });
  const byName = new Map(tensors.map((tensor) => [tensor.name, tensor]));
  const handle = await open(file, 'w');
  const chunk = new Uint32Array(chunkBytes / 4);
  await handle.write(header);
  for (const name of order) await writeTensor(handle, byName.get(name) as TensorSpec, chunk);
  await handle.sync();
  await handle.close();
}

/** A Llama folder of this shape with random bf16 weights in shards with an index, made unless it is there; the folder. */
export async function largeModel(folder: string, shape: ModelShape, limit = shardBytes): Promise<string> {
  const config = path.join(folder, 'config.json');
  if (existsSync(config)) return folder; // written last
  await mkdir(folder, { recursive: true });
  const shards = shardsOf(tensorsOf(shape), limit);
  const nameOf = (i: number): string => `model-${String(i + 1).padStart(5, '0')}-of-${String(shards.length).padStart(5, '0')}.safetensors`;
  for (const [i, tensors] of shards.entries()) await writeShard(path.join(folder, nameOf(i)), tensors);
  const weightMap = Object.fromEntries(shards.flatMap((tensors, i) => tensors.map(({ name }) => [name, nameOf(i)])));
  const total = shards.flat().reduce((sum, tensor) => sum + bytesOf(tensor), 0);
  await writeFile(path.join(folder, 'model.safetensors.index.json'), JSON.stringify({ metadata: { total_size: total }, weight_map: weightMap }, null, 2));
  await writeFile(config, JSON.stringify(configOf(shape), null, 2));
  return folder;
}

function configOf(shape: ModelShape): object {
  return {
    architectures: ['LlamaForCausalLM'], model_type: 'llama', hidden_act: 'silu', hidden_size: shape.hidden, intermediate_size: shape.intermediate,
    max_position_embeddings: shape.positions, num_attention_heads: shape.heads, num_hidden_layers: shape.layers, num_key_value_heads: shape.kvHeads,
    rms_norm_eps: 1e-5, rope_theta: 10000, tie_word_embeddings: shape.tied ?? true, vocab_size: shape.vocab, torch_dtype: 'bfloat16', bos_token_id: 1, eos_token_id: 2,
  };
}
