import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { type ErrorCode, LowrankError } from './error.ts';

/** Names a tensor, weight or mapped file inside the addon; 0 stands for an operand that is not given. */
export type Handle = number;

/** What the addon offers. Numbers cross, and at the edges one typed array in, one `ArrayBuffer` out. */
export interface Addon {
  probe(kind: string): { count: number; why: string };
  open(kind: string, index: number, threads: number, matmulPrecision: number): number;
  close(device: number): void;
  info(device: number): { kind: string; name: string; kernels: string; memory: number; threads: number; matmulPrecision: number; activations: number };
  fence(device: number): Promise<void>;
  stats(device: number): { tensors: number; liveBytes: number; peakBytes: number; reservedBytes: number; ops: number };
  resetPeak(device: number): void;
  alloc(device: number, dtype: number, ...dims: number[]): Handle;
  allocBordered(device: number, dtype: number, ...dims: number[]): Handle;
  view(tensor: Handle, elementOffset: number, ...dims: number[]): Handle;
  release(handle: Handle): boolean;
  map(file: string): Handle;
  mapBytes(file: Handle): number;
  mapTensor(device: number, file: Handle, dtype: number, byteOffset: number, ...dims: number[]): Handle;
  weight(device: number, order: number, ...parts: Handle[]): Handle;
  lend(tensor: Handle, versioned: number): bigint;
  returnLoan(managed: bigint, versioned: number): void;
  adopt(device: number, managed: bigint, versioned: number): [Handle, number, ...number[]];
  upload(tensor: Handle, data: ArrayBufferView): void;
  download(tensor: Handle): Promise<ArrayBuffer>;
  writeFile(device: number, file: string, header: Uint8Array, tensors: Handle[]): Promise<void>;
  readonly ops: Readonly<Record<string, (...operands: number[]) => void>>;
}

const require = createRequire(import.meta.url);
const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
let loaded: Addon | undefined;

/**
 * The native addon, loaded at the first call: from the build tree, else from the prebuilds.
 *
 * @throws LowrankError ERR_ADDON that tells platform, cause and remedy.
 */
export function addon(): Addon {
  loaded ??= load();
  return loaded;
}

/** Whether the addon can be loaded, and why not. */
export function addonFault(): LowrankError | null {
  try {
    addon();
    return null;
  } catch (error) {
    return error as LowrankError;
  }
}

function load(): Addon {
  const places = [
    ['module_root', 'build', 'Debug', 'bindings'],
    ['module_root', 'build', 'Release', 'bindings'],
    ['module_root', 'prebuilds', `${process.platform}-${process.arch}`, 'bindings'],
  ];
  try {
    return require('bindings')({ bindings: 'lowrank', module_root: root, try: places }) as Addon;
  } catch (cause) {
    throw new LowrankError('ERR_ADDON', explain(cause), { cause });
  }
}

function explain(cause: unknown): string {
  const built = ['build/Debug', 'build/Release', `prebuilds/${process.platform}-${process.arch}`]
    .map((folder) => path.join(root, folder, 'lowrank.node'))
    .filter((file) => existsSync(file));
  const header = process.report.getReport() as { header?: { glibcVersionRuntime?: string } };
  const libc = header.header?.glibcVersionRuntime === undefined ? 'no glibc' : `glibc ${header.header.glibcVersionRuntime}`;
  const reason = built.length === 0 ? 'there is no lowrank.node for this platform' : (cause as Error).message.split('\n')[0];
  return [
    `lowrank: the native addon must load (${reason})`,
    `  platform: ${process.platform}-${process.arch}, ${libc}, Node ${process.version}, Node-API ${process.versions['napi']}`,
    `  looked in: ${built.length === 0 ? path.join(root, 'build/Release') + ', prebuilds' : built.join(', ')}`,
    `  remedy: build it with g++ 11 or newer, cmake and Highway (Debian: apt-get install g++ cmake libhwy-dev), then`,
    `          npm run build:native   (in ${root})`,
  ].join('\n');
}

/** Runs a call into the addon; what it throws becomes a LowrankError with the same code. */
export function guarded<T>(call: () => T): T {
  try {
    return call();
  } catch (error) {
    throw asLowrankError(error);
  }
}

/** As {@link guarded}, for calls that return a promise. */
export async function guardedAsync<T>(call: () => Promise<T>): Promise<T> {
  try {
    return await call();
  } catch (error) {
    throw asLowrankError(error);
  }
}

function asLowrankError(error: unknown): unknown {
  if (!(error instanceof Error) || error instanceof LowrankError) return error;
  const code = (error as { code?: unknown }).code;
  if (typeof code !== 'string' || !code.startsWith('ERR_')) return error;
  return new LowrankError(code as ErrorCode, error.message, { cause: error });
}
