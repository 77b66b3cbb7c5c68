import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { type ErrorCode, LowrankError } from './error.ts';
import { explainFault, type LoadFacts } from './native-fault.ts';

/** Names a tensor, weight or mapped file inside the addon; 0 stands for an operand that is not given. */
export type Handle = number;

/** What the addon offers. Numbers cross, and at the edges one typed array in, one `ArrayBuffer` out. */
export interface Addon {
  probe(kind: string): { count: number; why: string };
  open(kind: string, index: number, threads: number, matmulPrecision: number, weightMemory: number, graphs: number): number;
  close(device: number): void;
  info(device: number): { kind: string; name: string; kernels: string; memory: number; freeMemory: number; weightMemory: number; products: string; threads: number; matmulPrecision: number; activations: number };
  fence(device: number): Promise<void>;
  stats(device: number): { tensors: number; liveBytes: number; peakBytes: number; reservedBytes: number; ops: number; kernelBytes: number; broughtBytes: number; graphs?: { ops: number; replayed: number; captured: number; updated: number; refused: number; why: string } };
  weightRoom(device: number): number;
  chooseWeightMemory(device: number, bytes: number): void;
  resetPeak(device: number): void;
  alloc(device: number, dtype: number, ...dims: number[]): Handle;
  allocBordered(device: number, dtype: number, ...dims: number[]): Handle;
  view(tensor: Handle, elementOffset: number, ...dims: number[]): Handle;
  release(handle: Handle): boolean;
  map(file: string): Handle;
  mapBytes(file: Handle): number;
  mapTensor(device: number, file: Handle, dtype: number, byteOffset: number, ...dims: number[]): Handle;
  weight(device: number, order: number, activations: number, ...parts: Handle[]): Handle;
  lend(tensor: Handle, versioned: number): bigint;
  returnLoan(managed: bigint, versioned: number): void;
  adopt(device: number, managed: bigint, versioned: number): [Handle, number, ...number[]];
  upload(tensor: Handle, data: ArrayBufferView): void;
  download(tensor: Handle): Promise<ArrayBuffer>;
  writeFile(device: number, file: string, header: Uint8Array, tensors: Handle[]): Promise<void>;
  readonly ops: Readonly<Record<string, (...operands: number[]) => void>>;
}

/** This file; a bundle in CommonJS has no `import.meta`. */
const here = (import.meta.url as string | undefined) ?? pathToFileURL(__filename).href;
const require = createRequire(here);
const folder = path.dirname(fileURLToPath(here));
const root = path.resolve(folder, '..');
let loaded: Addon | undefined;

/**
 * The native addon, loaded at the first call: the file that LOWRANK_ADDON names, else from the build tree, else from the
 * prebuilds, of the package or beside a bundle.
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

const platform = `${process.platform}-${process.arch}`;

/** Where `bindings` looks under the package. */
const tries = [['build', 'Debug'], ['build', 'Release'], ['prebuilds', platform]];

function load(): Addon {
  const chosen = process.env['LOWRANK_ADDON'];
  try {
    if (chosen !== undefined) return require(path.resolve(chosen)) as Addon;
    return isPackaged() ? findWithBindings() : (require(path.join(folder, 'prebuilds', platform, 'lowrank.node')) as Addon);
  } catch (cause) {
    throw new LowrankError('ERR_ADDON', explainFault(factsOf(cause, chosen)), { cause });
  }
}

/** False in a bundle with its prebuilds beside it. */
function isPackaged(): boolean {
  return !existsSync(path.join(folder, 'prebuilds', platform, 'lowrank.node'));
}

function findWithBindings(): Addon {
  const places = tries.map((place) => ['module_root', ...place, 'bindings']);
  return require('bindings')({ bindings: 'lowrank', module_root: root, try: places }) as Addon;
}

/** Files that may be the addon. */
function addonPlaces(): string[] {
  const chosen = process.env['LOWRANK_ADDON'];
  if (chosen !== undefined) return [path.resolve(chosen)];
  return [path.join(folder, 'prebuilds', platform, 'lowrank.node'), ...tries.map((place) => path.join(root, ...place, 'lowrank.node'))];
}

/** The file that the addon comes from; undefined if there is none. */
export function addonFile(): string | undefined {
  return addonPlaces().find((file) => existsSync(file));
}

function factsOf(cause: unknown, chosen: string | undefined): LoadFacts {
  const places = addonPlaces();
  const report = process.report.getReport() as { header?: { glibcVersionRuntime?: string } };
  return {
    platform: process.platform, arch: process.arch, glibc: report.header?.glibcVersionRuntime ?? null,
    node: process.version, napi: process.versions['napi'], root, places, present: places.filter((file) => existsSync(file)), chosen,
    reason: ((cause as Error).message.split('\n')[0] ?? '').trim(),
  };
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
