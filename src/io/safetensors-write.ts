import { LowrankError, throwFaults } from '../error.ts';
import { writeFileAtomic } from './atomic.ts';
import { compareDtypes, count, tensorBytes, type SafetensorsDtype } from './safetensors-dtypes.ts';

/** What a header says of a tensor that is to be written. */
export interface TensorSpec {
  name: string;
  dtype: SafetensorsDtype;
  shape: readonly number[];
}

/** A file about to be written: its first bytes, and what has to follow them. */
export interface SafetensorsLayout {
  /** 8-byte length, JSON, spaces up to a multiple of 8. */
  header: Uint8Array;
  /** Names in the order in which their bytes follow the header, without gaps. */
  order: string[];
  /** Length of the whole file. */
  byteLength: number;
}

/**
 * Lays a file out byte for byte as safetensors 0.8 does (and so PEFT): wide dtypes first, then names in the order of their
 * UTF-8 bytes.
 *
 * @throws `ERR_ARGUMENT` for a name given twice, a reserved name, or a shape that fills no whole bytes.
 * @example
 * ```ts
 * const { header, order } = safetensorsLayout([{ name: 'w', dtype: 'F32', shape: [2, 3] }], { format: 'pt' });
 * ```
 */
export function safetensorsLayout(tensors: readonly TensorSpec[], metadata: Readonly<Record<string, string>> = {}): SafetensorsLayout {
  checkSpecs(tensors);
  const sorted = tensors
    .map((tensor) => ({ ...tensor, bytes: Buffer.from(tensor.name) }))
    .sort((a, b) => compareDtypes(a.dtype, b.dtype) || Buffer.compare(a.bytes, b.bytes));
  // Text is joined by hand: an object would move names such as "0" to its front.
  const entries = Object.keys(metadata).length > 0 ? [`"__metadata__":${JSON.stringify(metadata)}`] : [];
  let offset = 0;
  for (const { name, dtype, shape } of sorted) {
    const end = offset + (tensorBytes(dtype, shape) as number);
    entries.push(`${JSON.stringify(name)}:{"dtype":"${dtype}","shape":[${shape.join(',')}],"data_offsets":[${offset},${end}]}`);
    offset = end;
  }
  const header = frame(`{${entries.join(',')}}`);
  return { header, order: sorted.map(({ name }) => name), byteLength: header.length + offset };
}

function checkSpecs(tensors: readonly TensorSpec[]): void {
  const faults: string[] = [];
  const seen = new Set<string>();
  for (const { name, dtype, shape } of tensors) {
    if (seen.has(name)) faults.push(`"${name}" is given twice`);
    if (name === '__metadata__') faults.push('"__metadata__" is no name for a tensor');
    if (!shape.every((size) => Number.isSafeInteger(size) && size >= 0)) faults.push(`"${name}": [${shape.join(', ')}] is no shape`);
    else if (typeof tensorBytes(dtype, shape) === 'string') faults.push(`"${name}": ${tensorBytes(dtype, shape)}`);
    seen.add(name);
  }
  throwFaults('ERR_ARGUMENT', 'safetensors layout', faults);
}

/** Length, text, and spaces that make the whole a multiple of 8, so that tensors start aligned. */
function frame(json: string): Uint8Array {
  const text = Buffer.from(json);
  const padded = Math.ceil(text.length / 8) * 8;
  const header = Buffer.alloc(8 + padded, ' ');
  header.writeBigUInt64LE(BigInt(padded), 0);
  text.copy(header, 8);
  return header;
}

/**
 * Writes a safetensors file from bytes that are in memory; for small files such as an optimizer's state. The file appears
 * whole or not at all.
 *
 * @throws `ERR_ARGUMENT` if an entry's bytes don't fit its shape, `ERR_FILE` if the file can't be written.
 * @example
 * ```ts
 * const data = new Uint8Array(new Float32Array([1, 2]).buffer);
 * await writeSafetensors('state.safetensors', [{ name: 'm', dtype: 'F32', shape: [2], data }]);
 * ```
 */
export async function writeSafetensors(
  file: string,
  entries: readonly (TensorSpec & { data: Uint8Array })[],
  metadata: Readonly<Record<string, string>> = {},
): Promise<void> {
  const { header, order } = safetensorsLayout(entries, metadata);
  const data = new Map(entries.map((entry) => [entry.name, entry.data]));
  const faults = entries.flatMap(({ name, dtype, shape, data: { byteLength } }) => {
    const needed = tensorBytes(dtype, shape);
    return needed === byteLength ? [] : [`"${name}" needs ${count(needed as number)} bytes for ${dtype} [${shape.join(', ')}] (it has ${count(byteLength)})`];
  });
  throwFaults('ERR_ARGUMENT', file, faults);
  await writeFileAtomic(file, [header, ...order.map((name) => data.get(name) ?? missing(name))]);
}

function missing(name: string): never {
  throw new LowrankError('ERR_INTERNAL', `safetensors: "${name}" has a place in the layout but no data`);
}
