import { type Device, MappedFile, type WeightOrder } from '../device.ts';
import { throwFaults } from '../error.ts';
import type { SafetensorsDtype } from '../io/safetensors-dtypes.ts';
import type { ShardedTensor, Shards } from '../io/shards.ts';
import { launch } from '../kernel.ts';
import { Linear } from '../nn/linear.ts';
import { cast, fillInplace } from '../ops/elementwise.ts';
import { keep, scope } from '../scope.ts';
import type { DType, Tensor } from '../tensor.ts';
import { placedBytes, type WeightNeeds } from './weight-memory.ts';

/** What frozen weights can be held in. */
export type WeightDtype = 'f16' | 'bf16' | 'f32';

const dtypeOf: Partial<Record<SafetensorsDtype, WeightDtype>> = { F32: 'f32', F16: 'f16', BF16: 'bf16' };

/** One matrix of a linear layer, as a checkpoint names it. */
export interface PartShape {
  /** The module's name, with the model's prefix: `model.layers.0.self_attn.q_proj`. */
  readonly name: string;
  readonly out: number;
}

export interface LinearShape {
  readonly parts: readonly PartShape[];
  readonly in: number;
  /** Whether the layers have a bias. Where only some of the parts have one in the file, that of the others is zero. */
  readonly bias: 'none' | 'added';
  readonly order?: WeightOrder;
}

/** Something that is made once everything was found to be there. */
export type Planned<T> = () => T;

export interface PlanSource {
  readonly device: Device;
  readonly shards: Shards;
  /** What module names begin with and the file's names may lack: `model.`. */
  readonly prefix: string;
  /** Convert weights to this dtype; null: leave them as they are. */
  readonly dtype: WeightDtype | null;
}

/**
 * Finds a model's tensors in its files, in two steps: what is asked for is checked at once and its faults noted, and made only
 * when {@link WeightPlan.build} runs, after the last question. So nothing has to be given back when a tensor is missing.
 */
export class WeightPlan {
  /** Numbers in all that were asked for. */
  parameters = 0;
  /** dtype of the first linear layer. */
  linearDtype: WeightDtype | null = null;
  /** Whether some are converted: those are made on the device, and stay there. */
  converts = false;
  readonly #matrices: number[] = [];
  #tables = 0;
  readonly #source: PlanSource;
  readonly #faults: string[] = [];
  readonly #used = new Set<string>();
  readonly #files = new Map<string, MappedFile>();
  readonly #made: Tensor[] = [];
  readonly #linears: Linear[] = [];

  constructor(source: PlanSource) {
    this.#source = source;
  }
  /** A norm's weight or a bias, in f32. */
  vector(name: string, size: number): Planned<Tensor> {
    const found = this.#find(name, [size]);
    return () => this.#inF32(found as ShardedTensor);
  }
  /** An embedding table, in the dtype of the weights. */
  table(name: string, rows: number, cols: number): Planned<Tensor> {
    const found = this.#find(name, [rows, cols]);
    this.#tables += rows * cols * bytesOf(this.#dtypeOf(found));
    return () => this.#matrix(found as ShardedTensor);
  }
  /** A frozen linear layer over matrices of the file. */
  linear({ parts, in: width, bias, order = 'out_in' }: LinearShape): Planned<Linear> {
    const found = parts.map(({ name, out }) => this.#find(`${name}.weight`, order === 'out_in' ? [out, width] : [width, out]));
    this.#checkOneDtype(parts, found);
    const biases = bias === 'none' ? null : this.#findBiases(parts);
    this.linearDtype ??= this.#dtypeOf(found[0] ?? null);
    this.converts ||= found.some((each) => each !== null && dtypeOf[each.dtype] !== this.#dtypeOf(each));
    this.#matrices.push(this.#placed(parts.reduce((sum, { out }) => sum + out, 0), width, found[0] ?? null, order));
    return () => {
      const matrices = parts.map(({ name }, i) => ({ name, matrix: this.#matrix(found[i] as ShardedTensor) }));
      const made = new Linear(matrices, biases === null ? null : this.#joined(parts, biases), order);
      this.#linears.push(made);
      return made;
    };
  }
  /** What the weights take on the device. `tied`: the table of so many rows is the output head, too. */
  needs(tied: { readonly rows: number; readonly cols: number } | null): WeightNeeds {
    const head = tied === null ? [] : [this.#placed(tied.rows, tied.cols, null, 'out_in')];
    const { activations } = this.#source.device.info;
    return { matrices: [...this.#matrices, ...head], tables: this.#tables, headIsTable: tied !== null && (activations === 'f32' || activations === this.linearDtype) };
  }
  #placed(out: number, width: number, found: ShardedTensor | null, order: WeightOrder): number {
    return placedBytes(out, width, { order, dtype: this.#dtypeOf(found) ?? this.linearDtype ?? 'f32', activations: this.#source.device.info.activations });
  }
  #dtypeOf(found: ShardedTensor | null): WeightDtype | null {
    return this.#source.dtype ?? (found === null ? null : (dtypeOf[found.dtype] ?? null));
  }
  /** @throws LowrankError ERR_FORMAT with everything that was asked for and isn't there as it should be */
  check(): void {
    for (const name of this.#strays()) this.#faults.push(`"${name}" has no place in a model of this configuration`);
    const shown = this.#faults.length > 40 ? [...this.#faults.slice(0, 40), `and ${this.#faults.length - 40} more`] : this.#faults;
    throwFaults('ERR_FORMAT', this.#source.shards.folder, shown);
  }
  /** Runs `make`, which calls what was planned; all tensors made are the result's. After an error none is left. */
  build<T>(make: () => T): T {
    this.check();
    let built: T | undefined;
    try {
      scope(() => {
        built = make();
        for (const tensor of this.#made) keep(tensor);
      });
    } catch (error) {
      for (const linear of this.#linears) linear.dispose();
      throw error;
    } finally {
      for (const file of this.#files.values()) file.dispose(); // the tensors over it keep it
    }
    return built as T;
  }
  #own(tensor: Tensor): Tensor {
    this.#made.push(tensor);
    return tensor;
  }
  #find(name: string, shape: readonly number[]): ShardedTensor | null {
    const stored = this.#storedName(name);
    const found = stored === null ? undefined : this.#source.shards.tensors.get(stored);
    if (found === undefined) {
      this.#faults.push(`"${name}" must be there (it is missing)`);
      return null;
    }
    this.#used.add(stored as string);
    if (found.shape.length !== shape.length || found.shape.some((size, i) => size !== shape[i])) {
      this.#faults.push(`"${stored}" must be [${shape.join(', ')}] (it is [${found.shape.join(', ')}])`);
    }
    if (dtypeOf[found.dtype] === undefined) this.#faults.push(`"${stored}" must be F32, F16 or BF16 (it is ${found.dtype})`);
    this.parameters += shape.reduce((product, size) => product * size, 1);
    return found;
  }
  /** Base models are saved without the prefix of the model that has a head. */
  #storedName(name: string): string | null {
    const { shards, prefix } = this.#source;
    if (shards.tensors.has(name)) return name;
    const bare = name.startsWith(prefix) ? name.slice(prefix.length) : name;
    return shards.tensors.has(bare) ? bare : null;
  }
  #findBiases(parts: readonly PartShape[]): readonly (ShardedTensor | null)[] {
    const none = parts.every(({ name }) => this.#storedName(`${name}.bias`) === null);
    return parts.map(({ name, out }) => (none || this.#storedName(`${name}.bias`) !== null ? this.#find(`${name}.bias`, [out]) : null));
  }
  #checkOneDtype(parts: readonly PartShape[], found: readonly (ShardedTensor | null)[]): void {
    const dtypes = found.map((each) => each?.dtype);
    if (this.#source.dtype !== null || dtypes.includes(undefined) || new Set(dtypes).size === 1) return;
    const what = parts.map(({ name }, i) => `${name.split('.').at(-1)} ${dtypes[i]}`).join(', ');
    this.#faults.push(`the weights beside "${parts[0]?.name}" must have one dtype (${what}); ask for weights in f16, bf16 or f32 to convert them`);
  }
  // A tensor beside one that is used (a bias, a quantiser's scale, an adapter's matrix) changes what its module computes. Others
  // (a stored rope table, GPT-2's causal mask) don't matter.
  #strays(): string[] {
    const modules = new Set([...this.#used].map((name) => name.slice(0, name.lastIndexOf('.'))));
    const ofUsed = (name: string): boolean => prefixesOf(name).some((prefix) => modules.has(prefix));
    return [...this.#source.shards.tensors.keys()].filter((name) => !this.#used.has(name) && ofUsed(name));
  }
  /** The stored bytes, mapped; another dtype only where one was asked for. */
  #matrix(stored: ShardedTensor): Tensor {
    const { dtype } = this.#source;
    const mapped = this.#mapped(stored);
    return this.#own(dtype === null || dtype === mapped.dtype ? mapped : cast(mapped, dtype));
  }
  #inF32(stored: ShardedTensor): Tensor {
    const mapped = this.#mapped(stored);
    return this.#own(mapped.dtype === 'f32' ? mapped : cast(mapped, 'f32'));
  }
  #mapped({ file, dtype, begin, shape }: ShardedTensor): Tensor {
    const map = this.#files.get(file) ?? new MappedFile(file);
    this.#files.set(file, map);
    return this.#source.device.mapped(map, dtypeOf[dtype] as DType, begin, shape);
  }
  #joined(parts: readonly PartShape[], biases: readonly (ShardedTensor | null)[]): Tensor {
    const only = biases[0];
    if (biases.length === 1 && only) return this.#inF32(only);
    const joined = this.#own(this.#source.device.empty([parts.reduce((n, { out }) => n + out, 0)]));
    let start = 0;
    parts.forEach(({ out }, i) => {
      const slot = joined.view([out], start);
      const stored = biases[i];
      if (stored) launch('cast', slot, this.#mapped(stored));
      else fillInplace(slot, 0);
      start += out;
    });
    return joined;
  }
}

function bytesOf(dtype: WeightDtype | null): number {
  return dtype === 'f16' || dtype === 'bf16' ? 2 : 4;
}

/** `a`, `a.b` and `a.b.c` of `a.b.c.d`. */
function prefixesOf(name: string): string[] {
  const pieces = name.split('.');
  return pieces.slice(1).map((_, i) => pieces.slice(0, i + 1).join('.'));
}
