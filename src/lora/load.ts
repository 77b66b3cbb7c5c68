import { LowrankError, throwFaults } from '../error.ts';
import { readPeftFolder, type AdapterFolder, type StoredMatrix } from '../io/peft.ts';
import type { LoraPart } from '../io/peft-keys.ts';
import { launch } from '../kernel.ts';
import type { Model } from '../models/model.ts';
import { scope } from '../scope.ts';
import type { DType, Tensor } from '../tensor.ts';
import { Adapter } from './adapter.ts';
import { checkSeed, selectLayers } from './attach.ts';
import type { ResolvedLoraConfig } from './config.ts';
import { refuseName, setAdapter } from './model-adapters.ts';
import type { LayerLora } from './targets.ts';

/** How an adapter is read. */
export interface LoadAdapterOptions {
  /** `'default'` */
  readonly name?: string;
  /** Whether it has gradients; true. */
  readonly trainable?: boolean;
  /** Of dropout; 0. */
  readonly seed?: number;
}

/**
 * Loads a PEFT folder onto a model and makes the adapter the active one. 16-bit A and B are widened to f32.
 *
 * @throws LowrankError ERR_UNSUPPORTED with every setting that can't be honoured; ERR_FORMAT with every tensor that is missing, too
 * many or of another shape than config and model ask for; ERR_FILE; ERR_ARGUMENT for a name that is taken
 * @example
 * ```ts
 * const adapter = await loadAdapter(model, './out', { name: 'german', trainable: false });
 * ```
 */
export async function loadAdapter(model: Model, folder: string, { name = 'default', trainable = true, seed = 0 }: LoadAdapterOptions = {}): Promise<Adapter> {
  checkSeed(seed);
  refuseName(model, name);
  const read = await readPeftFolder(folder);
  const { config, kept, baseModelNameOrPath: baseModel } = read;
  const selected = selectedBy(model, config, folder);
  throwFaults('ERR_FORMAT', read.file, [...orderFaults(model, read), ...misfits(model, read, selected)]);
  refuseName(model, name); // it was not the only one loading, perhaps
  const adapter = new Adapter(model, { name, config, selected, trainable, seed, baseModel, kept });
  for (const { name: module, a, b } of adapter.modules) {
    fill(a, read.layers.get(module)?.A as StoredMatrix);
    fill(b, read.layers.get(module)?.B as StoredMatrix);
  }
  setAdapter(model, name);
  return adapter;
}

/** A config that doesn't fit the model is the file's fault, so the file is named. */
function selectedBy(model: Model, config: ResolvedLoraConfig, folder: string): Map<string, LayerLora> {
  try {
    return selectLayers(model, config);
  } catch (error) {
    if (!(error instanceof LowrankError)) throw error;
    throw new LowrankError(error.code, `${folder}: must fit the model, a ${model.facts.family} (${error.message})`, { cause: error });
  }
}

// A and B lie the same way for both, so a wrong flag would do no harm here; but PEFT writes the right one, so such an adapter was
// made for another base.
function orderFaults(model: Model, { fanInFanOut }: AdapterFolder): string[] {
  const conv = model.linears.some(({ order }) => order === 'in_out');
  if (fanInFanOut === conv) return [];
  const found = `adapter_config.json says ${fanInFanOut}, the model is ${model.facts.family}`;
  return [`fan_in_fan_out must be ${conv}: weights are stored [in, out] by GPT-2's Conv1D and by nothing else (${found}; is this its base model?)`];
}

const floats: Readonly<Record<string, DType>> = { F32: 'f32', F16: 'f16', BF16: 'bf16' };

function misfits(model: Model, { layers }: AdapterFolder, selected: ReadonlyMap<string, LayerLora>): string[] {
  const shapes = new Map(model.linears.flatMap((linear) => linear.parts.map(({ name }, i) => [name, [linear.outFeatures[i] as number, linear.inFeatures]] as const)));
  const faults: string[] = [];
  for (const [name, { rank }] of selected) {
    const layer = layers.get(name);
    if (layer === undefined) {
      faults.push(`"${name}" has no tensors, though the config adapts it`);
      continue;
    }
    const [N, K] = shapes.get(name) as [number, number];
    for (const [part, shape] of [['A', [rank, K]], ['B', [N, rank]]] as const) faults.push(...matrixFaults(layer[part], part, shape));
  }
  for (const name of layers.keys()) {
    if (!selected.has(name)) faults.push(`"${name}" has tensors, but ${shapes.has(name) ? 'the config does not adapt it' : 'the model has no linear layer of that name'}`);
  }
  return faults;
}

function matrixFaults({ key, dtype, shape }: StoredMatrix, part: LoraPart, wanted: readonly [number, number]): string[] {
  const faults: string[] = [];
  const meaning = part === 'A' ? '[rank, in]' : '[out, rank]';
  if (floats[dtype] === undefined) faults.push(`"${key}" must be F32, F16 or BF16 (it is ${dtype})`);
  if (shape.length !== 2 || shape[0] !== wanted[0] || shape[1] !== wanted[1]) faults.push(`"${key}" must be ${meaning} = [${wanted.join(', ')}] (it is [${shape.join(', ')}])`);
  return faults;
}

function fill(matrix: Tensor, { dtype, data }: StoredMatrix): void {
  if (dtype === 'F32') return matrix.upload(data);
  scope(() => {
    const narrow = matrix.device.empty(matrix.shape, floats[dtype] as DType);
    narrow.upload(data);
    launch('cast', matrix, narrow);
  });
}
