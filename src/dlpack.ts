import type { Device } from './device.ts';
import { addon, guarded } from './native.ts';
import { dtypes, Tensor, type DType } from './tensor.ts';

/** DLPack has two structs of different layout; a pointer alone doesn't tell which. */
export interface DLPackOptions {
  /** `DLManagedTensorVersioned` of DLPack 1 (true, the default), or `DLManagedTensor`. */
  readonly versioned?: boolean;
}

const asNumber = ({ versioned = true }: DLPackOptions): number => (versioned ? 1 : 0);

/**
 * The address of a DLPack managed tensor over the tensor's own bytes, for another native addon: nothing is copied. It is there when
 * everything queued before has run. Whoever takes it calls its deleter, once, from any thread; until then the bytes stay, though the
 * tensor be disposed of and the device closed. If nobody takes it: {@link releaseDLPack}.
 *
 * @throws LowrankError ERR_DISPOSED; ERR_ARGUMENT for a tensor in a mapped file with `versioned: false`; a failure of the queued work
 * @example
 * ```ts
 * import { fromDLPack, openDevice, toDLPack } from 'lowrank';
 * await using device = await openDevice('cpu');
 * using x = device.tensor(new Float32Array([1, 2, 3, 4]), [2, 2]);
 * const address = await toDLPack(x); // to another addon, as a BigInt; here it comes back
 * using same = fromDLPack(device, address);
 * same.upload(new Float32Array([5, 6, 7, 8]));
 * console.log(await x.data()); // Float32Array [5, 6, 7, 8]
 * ```
 */
export async function toDLPack(tensor: Tensor, options: DLPackOptions = {}): Promise<bigint> {
  const address = guarded(() => addon().lend(tensor.handle, asNumber(options)));
  try {
    await tensor.device.fence();
    return address;
  } catch (error) {
    releaseDLPack(address, options);
    throw error;
  }
}

/**
 * A tensor over the bytes of a DLPack managed tensor, which it takes over: its deleter is called, on the device's stream, behind the
 * last work that used the tensor. Rows must lie without gaps. What lies in memory that CUDA pinned is a tensor of the CPU. Where this throws,
 * the managed tensor stays the caller's.
 *
 * The address is believed: one that is wrong ends the process.
 *
 * @throws LowrankError ERR_DEVICE, ERR_DTYPE (other than f32, f16, bf16, i32, u8), ERR_SHAPE, ERR_ARGUMENT, ERR_UNSUPPORTED (a major version other than 1)
 */
export function fromDLPack(device: Device, address: bigint, options: DLPackOptions = {}): Tensor {
  const [handle, dtype, ...shape] = guarded(() => addon().adopt(device.id, address, asNumber(options)));
  return new Tensor(device, handle, dtypes[dtype] as DType, shape);
}

/** Calls the deleter of a managed tensor that nobody took. */
export function releaseDLPack(address: bigint, options: DLPackOptions = {}): void {
  guarded(() => addon().returnLoan(address, asNumber(options)));
}
