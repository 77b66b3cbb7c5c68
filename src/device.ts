import { LowrankError } from './error.ts';
import { addon, guarded, guardedAsync, type Handle } from './native.ts';
import { type DType, dtypes, type Shape, Tensor } from './tensor.ts';

/** What a device is. */
export interface DeviceInfo {
  readonly kind: string;
  readonly name: string;
  /** Which kernel table runs: `avx512`, `avx2` or `base`. */
  readonly kernels: string;
  /** Bytes of memory it has. */
  readonly memory: number;
  /** Bytes of it that nobody had when the device was opened; 0 where that isn't known (CPU). */
  readonly freeMemory: number;
  /** Bytes of it that frozen weights share in turns, as was asked for or as the first model needed it; 0: all weights stay. */
  readonly weightMemory: number;
  readonly threads: number;
  /** In force; `highest` where `medium` was asked for but would gain nothing. */
  readonly matmulPrecision: MatmulPrecision;
  /** What activations are stored in. */
  readonly activations: ActivationDtype;
  /** On CUDA: what multiplies matrices of 16 bits, cublasLt with its version and file, or the own kernel, and why. On the CPU: what `medium` means there; empty with `highest`. */
  readonly products: string;
}

/** What activations, and gradients of them, are stored in. Arithmetic and all sums are f32 whatever it is. */
export const activationDtypes = ['f32', 'bf16', 'f16'] as const;
/** What activations can be held in. */
export type ActivationDtype = (typeof activationDtypes)[number];

/** How exactly frozen weights are multiplied; PyTorch's words (`torch.set_float32_matmul_precision`). */
export const matmulPrecisions = ['highest', 'medium'] as const;
/** How frozen weights are multiplied: in f32, or in bf16 where that is faster. */
export type MatmulPrecision = (typeof matmulPrecisions)[number];

/** How a device is opened. */
export interface DeviceOptions {
  /** Size of the worker pool (CPU). Default: `LOWRANK_THREADS`, else one for each processor. Results don't depend on it. */
  readonly threads?: number;
  /**
   * `highest` (default): products with frozen weights in f32. `medium`: activations and weights are rounded to bf16 on their way into
   * those products where the processor does them faster so (Intel's AMX, AMD's AVX512-BF16), as PyTorch does for a bf16 model; sums,
   * the low-rank products and all else stay f32.
   */
  readonly matmulPrecision?: MatmulPrecision;
  /** Default: bf16 on `cuda`, f32 on `cpu`, which takes nothing else. f16 has more digits and less range than bf16: its losses are scaled. */
  readonly activations?: ActivationDtype;
  /**
   * Bytes that frozen weights may take of the device's memory (on the CPU: of the system's). Where they don't all fit they stay in their
   * files, and each is brought before its turn. `auto` (the default, where `LOWRANK_WEIGHT_MEMORY` says nothing): on a GPU what the work
   * leaves free where the first model that is loaded doesn't fit beside it, on the CPU what memory there is. `all`: all weights must fit.
   * `info.weightMemory` tells what was chosen. Results don't depend on it.
   */
  readonly weightMemory?: number | 'auto' | 'all';
  /**
   * CUDA: whether runs of ops that come again, as in every training step of the same shape, are captured once and launched as CUDA
   * graphs. Default: true (`LOWRANK_GRAPHS=0`: false). Results don't depend on it. What came of it is told by `stats().graphs`.
   */
  readonly graphs?: boolean;
}

/** What a device holds and has done. */
export interface DeviceStats {
  /** Live tensors, weights included. */
  readonly tensors: number;
  /** Bytes of device memory that tensors and weights use, used at most so far, and have been taken from the system for them. Mapped files are not counted. */
  readonly liveBytes: number;
  readonly peakBytes: number;
  readonly reservedBytes: number;
  /** The most that kernels took of the device's memory for themselves, beside those bytes (CUDA: scratch, room to convert weights in). */
  readonly kernelBytes: number;
  /** Bytes of weights that were brought to the device so far because weights take turns there (`weightMemory`). */
  readonly broughtBytes: number;
  /** Pieces of work queued since the device was opened. */
  readonly ops: number;
  /** What CUDA graphs have done; nothing where there are none. */
  readonly graphs?: GraphStats;
}

/** How much of a device's work was launched as CUDA graphs. */
export interface GraphStats {
  /** Ops launched so far, and how many of these by a graph. */
  readonly ops: number;
  readonly replayed: number;
  /** Graphs made, and changed because numbers in them had changed (a learning rate). */
  readonly captured: number;
  readonly updated: number;
  /** Runs of ops that can't be captured, which are launched one by one, and the reason of the last. */
  readonly refused: number;
  readonly why: string;
}

/**
 * A frozen weight W0 [out, in] of one to three parts that read the same input. Opaque: where the device reads host memory its bytes stay
 * where they are (usually a mapped file) and in their dtype; elsewhere it is one matrix in device memory.
 */
export class Weight {
  readonly device: Device;
  readonly out: readonly number[];
  readonly in: number;
  readonly dtype: DType;
  readonly #handle: Handle;
  #disposed = false;

  /** @internal Use `device.weight`. */
  constructor(device: Device, handle: Handle, parts: readonly Tensor[], order: WeightOrder) {
    this.device = device;
    this.#handle = handle;
    this.out = parts.map((part) => part.shape[order === 'out_in' ? 0 : 1] ?? 0);
    this.in = parts[0]?.shape[order === 'out_in' ? 1 : 0] ?? 0;
    this.dtype = parts[0]?.dtype ?? 'f32';
  }
  get handle(): Handle {
    if (this.#disposed) throw new LowrankError('ERR_DISPOSED', `weight [${this.rows},${this.in}]: was used after dispose()`);
    return this.#handle;
  }
  /** Rows of all parts together. */
  get rows(): number {
    return this.out.reduce((n, rows) => n + rows, 0);
  }
  /** Releases its memory, behind the work that is queued; more than once does no harm. */
  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    if (!this.device.closed) addon().release(this.#handle);
  }
  /** The end of a `using` block. */
  [Symbol.dispose](): void {
    this.dispose();
  }
}

/** How a stored matrix lies: nn.Linear's [out, in], or GPT-2's Conv1D [in, out]. */
export type WeightOrder = 'out_in' | 'in_out';

/** A file mapped for reading; tensors over it keep it alive after `dispose()`. */
export class MappedFile {
  readonly path: string;
  readonly byteLength: number;
  readonly #handle: Handle;
  #disposed = false;

  /** @throws LowrankError ERR_FILE, ERR_FORMAT (an empty file) */
  constructor(path: string) {
    this.path = path;
    this.#handle = guarded(() => addon().map(path));
    this.byteLength = addon().mapBytes(this.#handle);
  }
  get handle(): Handle {
    return this.#handle;
  }
  /** Releases its memory, behind the work that is queued; more than once does no harm. */
  dispose(): void {
    if (!this.#disposed) addon().release(this.#handle);
    this.#disposed = true;
  }
  /** The end of a `using` block. */
  [Symbol.dispose](): void {
    this.dispose();
  }
}

/** An opened device with its stream. Ops run in the order they were called in; nothing waits but `fence` and reads. */
export class Device {
  readonly id: number;
  /** What `auto` passed over, in words; empty when nothing was. */
  readonly note: string;
  /** @internal Whether the first model may choose how much memory weights share. */
  readonly choosesWeightMemory: boolean;
  #info: DeviceInfo;
  #closed = false;

  /** @internal Use {@link openDevice}. @throws LowrankError ERR_ARGUMENT for activations that the backend doesn't take */
  constructor(id: number, note: string, activations?: ActivationDtype, choosesWeightMemory = false) {
    this.id = id;
    const info = addon().info(id);
    this.#info = { ...info, matmulPrecision: matmulPrecisions[info.matmulPrecision] ?? 'highest', activations: chosenActivations(info, activations) };
    this.choosesWeightMemory = choosesWeightMemory && info.kind !== 'cpu' && info.weightMemory === 0;
    this.note = note;
  }
  /** What it is, and how it is used. */
  get info(): DeviceInfo {
    return this.#info;
  }
  get kind(): string {
    return this.info.kind;
  }
  get closed(): boolean {
    return this.#closed;
  }
  /** A new tensor, not initialised. @throws LowrankError ERR_MEMORY */
  empty(shape: Shape, dtype: DType = 'f32'): Tensor {
    this.#check();
    return new Tensor(this, guarded(() => addon().alloc(this.id, dtypes.indexOf(dtype), ...shape)), dtype, shape);
  }
  /**
   * A new activation, not initialised: in the device's dtype for them unless another is given, laid out as its kernels like them best (on
   * CUDA rows of 16-bit numbers have spare columns, which take part in nothing). @throws LowrankError ERR_MEMORY
   */
  activation(shape: Shape, dtype: DType = this.info.activations): Tensor {
    this.#check();
    return new Tensor(this, guarded(() => addon().allocBordered(this.id, dtypes.indexOf(dtype), ...shape)), dtype, shape, 'activation');
  }
  /** A new tensor with this content: Float32Array is f32, Int32Array is i32. @throws LowrankError ERR_SHAPE, ERR_MEMORY */
  tensor(data: Float32Array | Int32Array, shape: Shape = [data.length]): Tensor {
    const tensor = this.empty(shape, data instanceof Int32Array ? 'i32' : 'f32');
    try {
      tensor.upload(data);
    } catch (error) {
      tensor.dispose();
      throw error;
    }
    return tensor;
  }
  /** A tensor over bytes of a mapped file, to be read only. A device that can't read them there gets a copy when an op needs one. */
  mapped(file: MappedFile, dtype: DType, byteOffset: number, shape: Shape): Tensor {
    this.#check();
    const handle = guarded(() => addon().mapTensor(this.id, file.handle, dtypes.indexOf(dtype), byteOffset, ...shape));
    return new Tensor(this, handle, dtype, shape);
  }
  /**
   * A frozen weight of up to three matrices with one input size and dtype, as they are now: they are not to change while it lives.
   * It holds on to their bytes, or has its own.
   */
  weight(parts: readonly Tensor[], order: WeightOrder = 'out_in'): Weight {
    this.#check();
    const { activations } = this.info;
    const wide = activations === 'f32' ? -1 : dtypes.indexOf(activations);
    const handle = guarded(() => addon().weight(this.id, order === 'out_in' ? 0 : 1, wide, ...parts.map((part) => part.handle)));
    return new Weight(this, handle, parts, order);
  }
  /** Writes a header and the tensors' bytes to a file, flushed to the disk. @throws LowrankError ERR_FILE */
  async writeFile(file: string, header: Uint8Array, tensors: readonly Tensor[]): Promise<void> {
    this.#check();
    const handles = tensors.map((tensor) => tensor.handle);
    return guardedAsync(() => addon().writeFile(this.id, file, header, handles));
  }
  /** Resolves when everything queued so far has run; rejects with the first failure since the last fence. */
  async fence(): Promise<void> {
    this.#check();
    return guardedAsync(() => addon().fence(this.id));
  }
  /** Counts of tensors, bytes and ops, now. */
  stats(): DeviceStats {
    this.#check();
    return addon().stats(this.id);
  }
  /**
   * Bytes that frozen weights may take together at this moment, which they do in turns where that is less than they need; `Infinity` where
   * all must fit or the system sees to it.
   */
  weightRoom(): number {
    this.#check();
    return addon().weightRoom(this.id) || Infinity;
  }
  /** @internal Bytes of device memory that could be taken now. */
  freeBytes(): number {
    const { reservedBytes, liveBytes } = this.stats();
    return addon().info(this.id).freeMemory + reservedBytes - liveBytes;
  }
  /** @internal Weights that are made from now on share so many bytes in turns, unless some do so already. */
  chooseWeightMemory(bytes: number): void {
    this.#check();
    addon().chooseWeightMemory(this.id, bytes);
    this.#info = { ...this.#info, weightMemory: addon().info(this.id).weightMemory };
  }
  /** Starts `stats().peakBytes` anew. */
  resetPeak(): void {
    this.#check();
    addon().resetPeak(this.id);
  }
  /** Stops the stream and releases every tensor of the device. Twice is once. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    addon().close(this.id);
  }
  /** The end of an `await using` block. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.close();
  }
  /** The end of a `using` block. */
  [Symbol.dispose](): void {
    this.close();
  }
  #check(): void {
    if (this.#closed) throw new LowrankError('ERR_DISPOSED', `${this.kind}: the device is closed`);
  }
}

/** What can be opened here: the number of devices of a kind, and the reason when there is none. */
export function probeDevices(kind: 'cpu' | 'cuda' | 'cusim'): { count: number; why: string } {
  return addon().probe(kind);
}

/**
 * Opens a device: `cpu`, `cuda`, `cuda:1`, or `auto`, which takes CUDA where it opens and says in `note` why not otherwise.
 *
 * @throws LowrankError ERR_DEVICE with the reason, ERR_ARGUMENT, ERR_ADDON
 * @example
 * ```ts
 * import { openDevice } from 'lowrank';
 * await using device = await openDevice('auto');
 * console.log(device.info.name, device.note);
 * ```
 */
export async function openDevice(name = 'auto', options: DeviceOptions = {}): Promise<Device> {
  const match = /^(auto|cpu|cuda|cusim)(?::(\d+))?$/.exec(name);
  if (match === null) throw new LowrankError('ERR_ARGUMENT', `device: must be cpu, cuda, cuda:N or auto (found ${name})`);
  if (match[1] === 'auto') return openBest(options);
  return open(match[1] as string, Number(match[2] ?? 0), options);
}

function openBest(options: DeviceOptions): Device {
  const { count, why } = probeDevices('cuda');
  if (count === 0) return open('cpu', 0, options, why);
  try {
    return open('cuda', 0, options);
  } catch (error) {
    // Somebody else has it to himself, or its memory: a machine's state, not the caller's mistake.
    if (!(error instanceof LowrankError) || error.code === 'ERR_ARGUMENT') throw error;
    return open('cpu', 0, options, `cuda did not open: ${error.message}`);
  }
}

function open(kind: string, index: number, { threads = 0, matmulPrecision = 'highest', activations, weightMemory, graphs = true }: DeviceOptions, note = ''): Device {
  if (!Number.isInteger(threads) || threads < 0 || threads > 1024) throw new LowrankError('ERR_ARGUMENT', `device: threads must be a whole number from 1 to 1024 (found ${threads})`);
  const memory = weightMemoryOf(weightMemory);
  const precision = matmulPrecisions.indexOf(matmulPrecision);
  if (precision < 0) throw new LowrankError('ERR_ARGUMENT', `device: matmulPrecision must be ${matmulPrecisions.join(' or ')} (found ${matmulPrecision})`);
  const id = guarded(() => addon().open(kind, index, threads, precision, memory.bytes, graphs ? 1 : 0));
  try {
    return new Device(id, note, activations, memory.auto);
  } catch (error) {
    addon().close(id);
    throw error;
  }
}

/** As the addon takes it: 0 is what the environment says, -1 none whatever it says. */
function weightMemoryOf(wanted: DeviceOptions['weightMemory']): { bytes: number; auto: boolean } {
  if (wanted === undefined) return { bytes: 0, auto: ['', 'auto'].includes(process.env['LOWRANK_WEIGHT_MEMORY'] ?? '') };
  if (wanted === 'auto' || wanted === 'all') return { bytes: -1, auto: wanted === 'auto' };
  if (Number.isSafeInteger(wanted) && wanted >= 0) return { bytes: wanted, auto: false };
  throw new LowrankError('ERR_ARGUMENT', `device: weightMemory must be a number of bytes, auto or all (found ${String(wanted)})`);
}

/** The dtype that is wanted, if the backend takes it; else the default of its kind. `taken`: bit i is dtype i. */
function chosenActivations({ kind, activations: taken }: { readonly kind: string; readonly activations: number }, wanted?: ActivationDtype): ActivationDtype {
  const possible = activationDtypes.filter((dtype) => ((taken >> dtypes.indexOf(dtype)) & 1) === 1);
  if (wanted === undefined) return kind === 'cuda' && possible.includes('bf16') ? 'bf16' : 'f32';
  if (possible.includes(wanted)) return wanted;
  throw new LowrankError('ERR_ARGUMENT', `${kind}: activations must be ${possible.join(', ')} here (found ${String(wanted)})`);
}
