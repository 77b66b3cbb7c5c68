import type { Device } from './device.ts';
import { LowrankError } from './error.ts';
import { addon, guarded, guardedAsync, type Handle } from './native.ts';
import { adopt, disown, type Scope } from './scope.ts';

/** Element types, numbered as in native/core/dtype.h. */
export const dtypes = ['f32', 'f16', 'bf16', 'i32', 'u8'] as const;
/** What the elements of a tensor are. */
export type DType = (typeof dtypes)[number];
/** Lengths of the dimensions, the last one contiguous. */
export type Shape = readonly number[];

const bytesOf: Record<DType, number> = { f32: 4, f16: 2, bf16: 2, i32: 4, u8: 1 };

/**
 * Tells of tensors that were dropped, with LOWRANK_CHECK=leaks; else null, for it costs as much as the tensor. Only a report: the
 * garbage collector never decides about native memory.
 */
const leaks =
  process.env['LOWRANK_CHECK'] === 'leaks'
    ? new FinalizationRegistry<Handle>((handle) => console.warn(`lowrank: a tensor was dropped without dispose() (handle ${handle})`))
    : null;

/**
 * A tensor on a device: a handle with shape and dtype. The bytes are native; JavaScript holds no pointer to them.
 * Whoever makes a tensor outside of {@link scope} owns it and disposes of it.
 *
 * @example
 * ```ts
 * import { openDevice } from 'lowrank';
 * await using device = await openDevice('cpu');
 * using x = device.tensor(new Float32Array([1, 2, 3, 4]), [2, 2]);
 * console.log(await x.data()); // Float32Array [1, 2, 3, 4]
 * ```
 */
export class Tensor {
  readonly device: Device;
  readonly dtype: DType;
  readonly shape: Shape;
  /** @internal The scope that disposes of it; null: the tape, a module or the user does. A field because a map costs more than the rest. */
  owner: Scope | null = null;
  #handle: Handle;
  readonly #layout: 'dense' | 'activation';
  #disposed = false;

  /** @internal Use `device.empty`, `device.tensor` or an op. */
  constructor(device: Device, handle: Handle, dtype: DType, shape: Shape, layout: 'dense' | 'activation' = 'dense') {
    this.device = device;
    this.dtype = dtype;
    this.shape = shape;
    this.#handle = handle;
    this.#layout = layout;
    leaks?.register(this, handle, this);
    adopt(this);
  }

  /** The number that names it in the addon. @throws LowrankError ERR_DISPOSED */
  get handle(): Handle {
    if (this.#disposed) throw new LowrankError('ERR_DISPOSED', `tensor [${this.shape}]: was used after dispose()`);
    return this.#handle;
  }
  get disposed(): boolean {
    return this.#disposed;
  }
  /** Elements. */
  get size(): number {
    return this.shape.reduce((n, dim) => n * dim, 1);
  }
  get byteLength(): number {
    return this.size * bytesOf[this.dtype];
  }
  /** The last dimension. */
  get cols(): number {
    return this.shape[this.shape.length - 1] ?? 1;
  }
  /** The product of the others. */
  get rows(): number {
    return this.shape.slice(0, -1).reduce((n, dim) => n * dim, 1);
  }

  /** A new tensor of the same dtype and layout on the same device, not initialised; same shape unless given. */
  like(shape: Shape = this.shape): Tensor {
    return this.#layout === 'activation' ? this.device.activation(shape, this.dtype) : this.device.empty(shape, this.dtype);
  }
  /**
   * Another shape over the same elements, from element `offset` on. It keeps the bytes alive by itself. Where rows have spare columns
   * (see `device.activation`) it must take whole rows.
   */
  view(shape: Shape, offset = 0): Tensor {
    return new Tensor(this.device, guarded(() => addon().view(this.handle, offset, ...shape)), this.dtype, shape, this.#layout);
  }
  /** Replaces the content; the data are copied before this returns. @throws LowrankError ERR_SHAPE */
  upload(data: ArrayBufferView): void {
    guarded(() => addon().upload(this.handle, data));
  }
  /** The bytes, once everything queued before has run. */
  async bytes(): Promise<ArrayBuffer> {
    const handle = this.handle;
    return guardedAsync(() => addon().download(handle));
  }
  /** The content as f32, whatever the dtype; of i32 beyond 2^24 only {@link bytes} has every digit. */
  async data(): Promise<Float32Array> {
    const raw = await this.bytes();
    if (this.dtype === 'f32') return new Float32Array(raw);
    if (this.dtype === 'bf16') return fromBf16(new Uint16Array(raw));
    if (this.dtype === 'f16') return fromF16(new Uint16Array(raw));
    return Float32Array.from(this.dtype === 'i32' ? new Int32Array(raw) : new Uint8Array(raw));
  }
  /** @internal Bytes for a tensor that was disposed of, not initialised: what it held is made again. It belongs to the caller. */
  revive(): void {
    const twin = this.like();
    disown(twin);
    leaks?.unregister(twin);
    leaks?.register(this, twin.#handle, this);
    twin.#disposed = true;
    this.#handle = twin.#handle;
    this.#disposed = false;
  }
  /** Gives the memory back. Twice is once. */
  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    leaks?.unregister(this);
    disown(this);
    if (!this.device.closed) addon().release(this.#handle);
  }
  /** The end of a `using` block. */
  [Symbol.dispose](): void {
    this.dispose();
  }
}

// Loops: the `from` of a typed array is thirty times slower.
function fromBf16(bits: Uint16Array): Float32Array {
  const words = new Uint32Array(bits.length);
  for (let i = 0; i < bits.length; i++) words[i] = (bits[i] as number) << 16;
  return new Float32Array(words.buffer);
}

function fromF16(bits: Uint16Array): Float32Array {
  const values = new Float32Array(bits.length);
  for (let i = 0; i < bits.length; i++) values[i] = valueOfF16(bits[i] as number);
  return values;
}

function valueOfF16(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 31) return fraction === 0 ? sign * Infinity : NaN;
  return exponent === 0 ? sign * fraction * 2 ** -24 : sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}
