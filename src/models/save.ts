import { cp, readdir, realpath } from 'node:fs/promises';
import path from 'node:path';
import { type Device, MappedFile } from '../device.ts';
import { LowrankError, throwFaults } from '../error.ts';
import { replaceFolder } from '../io/atomic.ts';
import { readSafetensorsHeader, type SafetensorsTensor } from '../io/safetensors.ts';
import type { SafetensorsDtype } from '../io/safetensors-dtypes.ts';
import { safetensorsLayout } from '../io/safetensors-write.ts';
import { openShards, type Shards } from '../io/shards.ts';
import type { DType, Tensor } from '../tensor.ts';
import type { Model } from './model.ts';

/** What was written. */
export interface SavedModel {
  /** The weight files, by name. */
  readonly files: readonly string[];
  /** Files of the base that were not copied: its weights in other formats. */
  readonly left: readonly string[];
}

/**
 * Writes a model as a Hugging Face folder: its matrices as they are now (merged ones, say), all else as it stands in the folder
 * the model was loaded from, cut into the same files. The folder appears whole or not at all.
 *
 * @param out a folder that doesn't exist yet, or is empty
 * @throws LowrankError ERR_ARGUMENT if there is something in `out`; ERR_UNSUPPORTED if the weights were converted at loading; ERR_FILE
 * @example
 * ```ts
 * using merged = mergeAdapter(model, adapter);
 * await saveModel(model, './SmolLM-135M-merged');
 * ```
 */
export async function saveModel(model: Model, out: string): Promise<SavedModel> {
  const { folder } = model.facts;
  await checkFree(out);
  const shards = await openShards(folder);
  const matrices = currentMatrices(model, shards);
  const names = shards.files.map((file) => path.basename(file));
  const left: string[] = [];
  await replaceFolder(out, async (temporary) => {
    for (const file of shards.files) await writeShard(model, { file, matrices, target: path.join(temporary, path.basename(file)) });
    for (const name of await readdir(folder)) {
      if (names.includes(name) || name.startsWith('.')) continue;
      if (isOtherWeights(name)) left.push(name);
      else await cp(await realpath(path.join(folder, name)), path.join(temporary, name), { recursive: true });
    }
  });
  return { files: names, left };
}

async function checkFree(out: string): Promise<void> {
  const found = await readdir(out).catch((cause: NodeJS.ErrnoException) => {
    if (cause.code === 'ENOENT') return [];
    throw new LowrankError('ERR_FILE', `${out}: must be a folder, or not exist yet (${cause.code})`, { cause });
  });
  if (found.length > 0) throw new LowrankError('ERR_ARGUMENT', `${out}: must be empty or not exist yet (it holds ${found.slice(0, 3).join(', ')}${found.length > 3 ? ', …' : ''})`);
}

/** Beside safetensors they would be the model without what was merged. */
function isOtherWeights(name: string): boolean {
  return /\.(bin|pt|pth|ckpt|h5|msgpack|gguf|onnx|ot|safetensors)$/.test(name) || /^(pytorch_model|tf_model|flax_model).*index\.json$/.test(name) || /^(onnx|openvino|original)$/.test(name);
}

const widths: Partial<Record<SafetensorsDtype, DType>> = { F32: 'f32', F16: 'f16', BF16: 'bf16' };

/** Of each linear layer the matrix in use, by the name it has in the files; those may lack the model's prefix. */
function currentMatrices(model: Model, { tensors, folder }: Shards): Map<string, Tensor> {
  const found = new Map<string, Tensor>();
  const converted: string[] = [];
  for (const { name, matrix } of model.linears.flatMap(({ parts }) => parts)) {
    const key = [`${name}.weight`, `${name.slice(name.indexOf('.') + 1)}.weight`].find((each) => tensors.has(each));
    const stored = key === undefined ? undefined : tensors.get(key);
    if (key === undefined || stored === undefined) throw new LowrankError('ERR_FORMAT', `${folder}: must hold "${name}.weight", as when it was loaded`);
    if (widths[stored.dtype] === matrix.dtype) found.set(key, matrix);
    else converted.push(`"${key}" is stored as ${stored.dtype} and was loaded as ${matrix.dtype}`);
  }
  throwFaults('ERR_UNSUPPORTED', `${folder}: weights must have been loaded as they are stored`, converted.slice(0, 5));
  return found;
}

interface ShardJob {
  readonly file: string;
  readonly matrices: ReadonlyMap<string, Tensor>;
  readonly target: string;
}

async function writeShard({ device }: Model, { file, matrices, target }: ShardJob): Promise<void> {
  const source = await readSafetensorsHeader(file);
  const specs = [...source.tensors].map(([name, { dtype, shape }]) => ({ name, dtype, shape }));
  const { header, order } = safetensorsLayout(specs, source.metadata);
  using mapped = new MappedFile(file);
  const stored = new Map<string, Tensor>();
  try {
    for (const name of order) if (!matrices.has(name)) stored.set(name, rawBytes(device, mapped, source.tensors.get(name) as SafetensorsTensor));
    await device.writeFile(target, header, order.map((name) => (matrices.get(name) ?? stored.get(name)) as Tensor));
  } finally {
    for (const tensor of stored.values()) tensor.dispose();
  }
}

/** A tensor's bytes in the file, whatever its dtype. */
function rawBytes(device: Device, mapped: MappedFile, { begin, end }: SafetensorsTensor): Tensor {
  return device.mapped(mapped, 'u8', begin, [end - begin]);
}
