import { open } from 'node:fs/promises';
import { LowrankError, throwFaults } from '../error.ts';
import { duplicateKeys } from './json-keys.ts';
import { count, isSafetensorsDtype, safetensorsDtypes, tensorBytes, type SafetensorsDtype } from './safetensors-dtypes.ts';

/** Where one tensor lies in its file. */
export interface SafetensorsTensor {
  dtype: SafetensorsDtype;
  shape: number[];
  /** First byte, counted from the start of the file. */
  begin: number;
  /** One past the last byte, counted from the start of the file. */
  end: number;
}

/** A safetensors file whose header was read and found whole. */
export interface SafetensorsFile {
  file: string;
  metadata: Record<string, string>;
  tensors: Map<string, SafetensorsTensor>;
}

/** The crate's own limit on the JSON text (safetensors 0.8, `MAX_HEADER_SIZE`). */
const maxHeaderBytes = 100_000_000;

/** A hostile header can hold a million faults; nobody reads more than these. */
const maxFaults = 20;

/**
 * Reads and checks the header of a safetensors file. The tensors' bytes are not touched.
 *
 * All rules of the format hold: header of at most 100 MB that starts with `{`, known dtypes, byte counts that follow from
 * shape and dtype, offsets that tile the rest of the file without hole or overlap. Metadata may be absent, the header
 * unpadded and the tensors in any order.
 *
 * @throws `ERR_FILE` if the file can't be read, `ERR_FORMAT` with every fault found.
 * @example
 * ```ts
 * const { tensors } = await readSafetensorsHeader('model.safetensors');
 * tensors.get('lm_head.weight'); // { dtype: 'BF16', shape: [32000, 2048], begin: 8704, end: 131080704 }
 * ```
 */
export async function readSafetensorsHeader(file: string): Promise<SafetensorsFile> {
  const handle = await open(file, 'r').catch((cause: unknown) => {
    throw new LowrankError('ERR_FILE', `${file}: can't be opened (${(cause as NodeJS.ErrnoException).code ?? cause})`, { cause });
  });
  try {
    const stat = await handle.stat();
    if (!stat.isFile()) throw new LowrankError('ERR_FILE', `${file}: must be a file (it is a folder or a device)`);
    const prefix = new Uint8Array(8);
    const { bytesRead } = await handle.read(prefix, 0, 8, 0);
    const headerBytes = headerLength(file, prefix.subarray(0, bytesRead), stat.size);
    const header = new Uint8Array(headerBytes);
    const read = await handle.read(header, 0, headerBytes, 8);
    if (read.bytesRead !== headerBytes) throw new LowrankError('ERR_FILE', `${file}: became shorter while it was read`);
    return parseSafetensorsHeader(file, header, stat.size);
  } finally {
    await handle.close();
  }
}

/** Length of the JSON text, from the file's first 8 bytes: a little-endian 64-bit integer. */
function headerLength(file: string, prefix: Uint8Array, fileBytes: number): number {
  const fault = (text: string) => new LowrankError('ERR_FORMAT', `${file}: ${text}`);
  if (prefix.length < 8) throw fault(`a safetensors file has at least 8 bytes (it has ${count(prefix.length)})`);
  const length = new DataView(prefix.buffer, prefix.byteOffset).getBigUint64(0, true);
  if (length > BigInt(maxHeaderBytes)) {
    throw fault(`the header may have ${count(maxHeaderBytes)} bytes (its length field says ${length.toLocaleString('en-US')}; is this a safetensors file?)`);
  }
  const end = 8 + Number(length);
  if (end > fileBytes) throw fault(`the header ends at byte ${count(end)} but the file has ${count(fileBytes)}`);
  return Number(length);
}

/**
 * Checks a header that is already in memory: `header` is the JSON text without its 8-byte length, `fileBytes` the length
 * of the whole file.
 *
 * @throws `ERR_FORMAT` with every fault found.
 */
export function parseSafetensorsHeader(file: string, header: Uint8Array, fileBytes: number): SafetensorsFile {
  const text = decodeUtf8(file, header);
  const entries = Object.entries(parseObject(file, text));
  const faults = duplicateKeys(text).map(({ inside, key }) => `key ${JSON.stringify([...inside, key].join(' → '))} occurs twice`);
  const metadata = readMetadata(entries.find(([name]) => name === '__metadata__')?.[1], faults);
  const tensors = new Map<string, SafetensorsTensor>();
  for (const [name, value] of entries) {
    if (name === '__metadata__') continue;
    const tensor = readTensor(name, value, faults);
    if (tensor) tensors.set(name, tensor);
  }
  const dataStart = 8 + header.length;
  for (const tensor of tensors.values()) {
    tensor.begin += dataStart;
    tensor.end += dataStart;
  }
  // With a tensor left out for its own fault, holes would be reported that aren't there.
  if (faults.length === 0) checkTiling(tensors, dataStart, fileBytes, faults);
  const more = faults.length - maxFaults;
  throwFaults('ERR_FORMAT', file, more > 0 ? [...faults.slice(0, maxFaults), `and ${count(more)} more`] : faults);
  return { file, metadata, tensors };
}

function decodeUtf8(file: string, header: Uint8Array): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(header);
  } catch (cause) {
    throw new LowrankError('ERR_FORMAT', `${file}: the header must be UTF-8 (it has bytes that aren't)`, { cause });
  }
}

function parseObject(file: string, text: string): Record<string, unknown> {
  if (text[0] !== '{') {
    throw new LowrankError('ERR_FORMAT', `${file}: the header must start with "{" (it starts with ${JSON.stringify(text.slice(0, 8))})`);
  }
  try {
    return JSON.parse(text) as Record<string, unknown>;
  } catch (cause) {
    throw new LowrankError('ERR_FORMAT', `${file}: the header must be JSON (${(cause as Error).message})`, { cause });
  }
}

function readMetadata(value: unknown, faults: string[]): Record<string, string> {
  if (value === undefined || value === null) return {};
  if (typeof value !== 'object' || Array.isArray(value)) {
    faults.push(`"__metadata__" must be an object of strings (it is ${describe(value)})`);
    return {};
  }
  for (const [key, entry] of Object.entries(value)) {
    if (typeof entry !== 'string') faults.push(`"__metadata__" → ${JSON.stringify(key)} must be a string (it is ${describe(entry)})`);
  }
  return value as Record<string, string>;
}

/** One header entry, its offsets still counted from the end of the header; null if it has faults. */
function readTensor(name: string, value: unknown, faults: string[]): SafetensorsTensor | null {
  const before = faults.length;
  const fault = (text: string) => void faults.push(`${JSON.stringify(name)} ${text}`);
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    fault(`must be an object with dtype, shape and data_offsets (it is ${describe(value)})`);
    return null;
  }
  const { dtype, shape, data_offsets: offsets } = value as Record<string, unknown>;
  if (!isSafetensorsDtype(dtype)) fault(`has dtype ${describe(dtype)}; known are ${safetensorsDtypes.join(', ')}`);
  if (!isSizes(shape)) fault(`must have a shape of whole numbers (it is ${describe(shape)})`);
  if (!isSizes(offsets) || offsets.length !== 2) fault(`must have two byte positions as data_offsets (it is ${describe(offsets)})`);
  if (faults.length > before) return null;
  const tensor = { dtype, shape, begin: (offsets as number[])[0], end: (offsets as number[])[1] } as SafetensorsTensor;
  checkBytes(tensor, fault);
  return faults.length > before ? null : tensor;
}

function checkBytes({ dtype, shape, begin, end }: SafetensorsTensor, fault: (text: string) => void): void {
  if (end < begin) return fault(`ends before it begins (data_offsets [${count(begin)}, ${count(end)}])`);
  const needed = tensorBytes(dtype, shape);
  if (typeof needed === 'string') return fault(`can't be: ${needed}`);
  if (needed !== end - begin) fault(`needs ${count(needed)} bytes for ${dtype} [${shape.join(', ')}] but has ${count(end - begin)}`);
}

function isSizes(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((size) => Number.isSafeInteger(size) && size >= 0);
}

/** Tensors must cover the bytes behind the header once each: no hole, no overlap, nothing left at the end. */
function checkTiling(tensors: Map<string, SafetensorsTensor>, dataStart: number, fileBytes: number, faults: string[]): void {
  const inOrder = [...tensors].sort(([, a], [, b]) => a.begin - b.begin || a.end - b.end);
  let covered = dataStart;
  let last = 'the header';
  for (const [name, { begin, end }] of inOrder) {
    const quoted = JSON.stringify(name);
    if (begin > covered) faults.push(`${quoted} begins at byte ${count(begin)}, ${count(begin - covered)} behind the end of ${last}: a hole`);
    if (begin < covered) faults.push(`${quoted} begins at byte ${count(begin)}, inside ${last}, which ends at ${count(covered)}`);
    if (end > fileBytes) faults.push(`${quoted} ends at byte ${count(end)} but the file has ${count(fileBytes)}`);
    if (end >= covered) [covered, last] = [end, quoted];
  }
  if (covered < fileBytes) faults.push(`${count(fileBytes - covered)} bytes behind ${last} belong to no tensor`);
}

function describe(value: unknown): string {
  const text = JSON.stringify(value) ?? 'missing';
  return text.length > 60 ? `${text.slice(0, 60)}…` : text;
}
