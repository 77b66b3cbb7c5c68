import { readFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const folder = path.dirname(fileURLToPath(import.meta.url));

/** Absolute path of something beside this file: `goldenPath('families', 'qwen3')`. */
export function goldenPath(...parts: string[]): string {
  return path.join(folder, ...parts);
}

export interface GoldenTensor {
  shape: number[];
  data: Float32Array | Float64Array | Int32Array | Uint16Array; // Uint16Array: the raw bits of F16 and BF16
}

interface Entry {
  dtype: string;
  shape: number[];
  data_offsets: [number, number];
}

const views: Record<string, (bytes: ArrayBuffer) => GoldenTensor['data']> = {
  F32: (bytes) => new Float32Array(bytes),
  F64: (bytes) => new Float64Array(bytes),
  I32: (bytes) => new Int32Array(bytes),
  F16: (bytes) => new Uint16Array(bytes),
  BF16: (bytes) => new Uint16Array(bytes),
};

/** Every tensor of a safetensors file that this folder's scripts wrote. Trusts the file: it is no reader for users. */
export function readTensors(...parts: string[]): Map<string, GoldenTensor> {
  const file = readFileSync(goldenPath(...parts));
  const headerBytes = Number(file.readBigUInt64LE(0));
  const header = JSON.parse(file.toString('utf8', 8, 8 + headerBytes)) as Record<string, Entry>;
  const tensors = new Map<string, GoldenTensor>();
  for (const [name, entry] of Object.entries(header)) {
    if (name === '__metadata__') continue;
    const { dtype, shape, data_offsets: [from, to] } = entry;
    const view = views[dtype];
    if (!view) throw new Error(`${parts.join('/')}: "${name}" has dtype ${dtype}`);
    const bytes = new Uint8Array(file.subarray(8 + headerBytes + from, 8 + headerBytes + to)); // copied: aligned
    tensors.set(name, { shape, data: view(bytes.buffer) });
  }
  return tensors;
}

/** The f32 numbers of one tensor of `readTensors`, or an error that names what is missing. */
export function f32(tensors: Map<string, GoldenTensor>, name: string): Float32Array {
  const data = tensors.get(name)?.data;
  if (!(data instanceof Float32Array)) throw new Error(`golden: no f32 tensor "${name}"`);
  return data;
}

/** The int32 numbers of one tensor of `readTensors`. */
export function i32(tensors: Map<string, GoldenTensor>, name: string): Int32Array {
  const data = tensors.get(name)?.data;
  if (!(data instanceof Int32Array)) throw new Error(`golden: no int32 tensor "${name}"`);
  return data;
}

/** A JSON file of this folder, as the type that the caller says it has. */
export function readJson<T>(...parts: string[]): T {
  return JSON.parse(readFileSync(goldenPath(...parts), 'utf8')) as T;
}

/** A case of ops.json: sizes and settings by name, arrays by name (flat, row-major, f64). */
export interface OpCase {
  name: string;
  numbers: Record<string, number>;
  arrays: Record<string, number[]>;
}

/** The cases of one op that PyTorch wrote; an op without cases is an error, so that no test passes by finding none. */
export function opCases(op: string): OpCase[] {
  const cases = readJson<Record<string, OpCase[]>>('ops.json')[op];
  if (!cases?.length) throw new Error(`ops.json: no cases of "${op}"`);
  return cases;
}

/** A number or an array of a case, or an error that names it. */
export function of<T>(record: Record<string, T>, name: string): T {
  const value = record[name];
  if (value === undefined) throw new Error(`ops.json: no "${name}" (there are: ${Object.keys(record).join(', ')})`);
  return value;
}

/** An entry of families/index.json. */
export interface FamilyGolden {
  name: string; // folder with adapter/ and golden.safetensors
  model: string; // folder with config.json and weights: the same, or another's for an adapter on its own
  modelType: string;
  T: number;
  dtype: string | null; // of the stored weights; null where `model` is another folder
  ropeType: string;
  configLayout: string; // 'transformers 4' | 'transformers 5'
  loss: number;
  maxLogit: number;
  adapterMoves: number; // largest change of a logit by the adapter
  maxGrad: number;
  float32Error: { logits: number; grads: number };
  tolerance: { logits: number; grads: number }; // absolute
}

/** What runs/NAME/run.json holds, as far as tests read it. */
export interface RunGolden {
  name: string;
  config: {
    steps: number; micro: number; B: number; T: number; betas: [number, number]; eps: number; wd: number; clip: number;
    model: string; r: number; alpha: number; rslora: boolean; targets: string[]; lr: number; loraplus_lr_ratio: number;
    sched: 'constant' | 'linear'; warmup: number; seed: number; save_at: number[]; grads_at: number[];
  };
  base_model: string; // below this folder, 'families/llama_tied' say
  scaling: number;
  eval_loss_before: number;
  eval_loss_after: number;
  tolerance_vs_float64: { max_abs_loss_diff: number; max_abs_grad_norm_diff: number; final_adapter_rel_l2: number };
  log: { step: number; loss: number; tokens: number; grad_norm: number; lr: number }[];
  log_fp64_loss: number[];
  log_fp64_grad_norm: number[];
}
