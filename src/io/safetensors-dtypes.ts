/**
 * Bits per element of every dtype that safetensors 0.8 knows, in the order of that crate's `Dtype`: a writer lays tensors
 * out from the last of these to the first, so that wide elements come first and every tensor stays aligned.
 */
const bitsInOrder = {
  BOOL: 8,
  F4: 4,
  F6_E2M3: 6,
  F6_E3M2: 6,
  U8: 8,
  I8: 8,
  F8_E5M2: 8,
  F8_E4M3: 8,
  F8_E8M0: 8,
  F8_E4M3FNUZ: 8,
  F8_E5M2FNUZ: 8,
  I16: 16,
  U16: 16,
  F16: 16,
  BF16: 16,
  I32: 32,
  U32: 32,
  F32: 32,
  C64: 64,
  F64: 64,
  I64: 64,
  U64: 64,
} as const;

/** How a safetensors file names the type of a tensor's elements. */
export type SafetensorsDtype = keyof typeof bitsInOrder;

/** Every dtype, narrow ones first. */
export const safetensorsDtypes = Object.keys(bitsInOrder) as readonly SafetensorsDtype[];

const rank = new Map(safetensorsDtypes.map((dtype, index) => [dtype, index]));

export function isSafetensorsDtype(name: unknown): name is SafetensorsDtype {
  return typeof name === 'string' && Object.hasOwn(bitsInOrder, name);
}

/** Sorts wide dtypes before narrow ones, as the crate's writer does. */
export function compareDtypes(a: SafetensorsDtype, b: SafetensorsDtype): number {
  return (rank.get(b) ?? 0) - (rank.get(a) ?? 0);
}

/**
 * Bytes that a tensor takes, or a sentence that says why there is no such number. Arithmetic stops at 2^53: past that a
 * double would round, and no file is that long.
 */
export function tensorBytes(dtype: SafetensorsDtype, shape: readonly number[]): number | string {
  let elements = 1;
  for (const size of shape) {
    elements *= size;
    if (!Number.isSafeInteger(elements)) return `shape [${shape.join(', ')}] has more elements than can be counted`;
  }
  const bits = elements * bitsInOrder[dtype];
  if (!Number.isSafeInteger(bits)) return `shape [${shape.join(', ')}] of ${dtype} has more bits than can be counted`;
  if (bits % 8 !== 0) return `shape [${shape.join(', ')}] of ${dtype} is ${count(bits)} bits, which is no whole number of bytes`;
  return bits / 8;
}

/** 524288 as `524,288`. */
export function count(value: number): string {
  return value.toLocaleString('en-US');
}
