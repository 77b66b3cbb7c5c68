import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { addonFile } from '../native.ts';
import type { LayerShape } from './layer-work.ts';
import { startLineWorker } from './line-worker.ts';
import type { Party } from './turns.ts';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../..');

/** The work of {@link makeCallWork} done by a program that calls the C ABI, with no JavaScript in the way. */
export interface CallsFromC {
  party(shape: LayerShape, threads: number): Party;
  stop(): Promise<void>;
}

/** Its name ends in the minor version. */
function cLibraryIn(folder: string): string {
  const names = existsSync(folder) ? readdirSync(folder) : [];
  return path.join(folder, names.find((name) => /^liblowrank\.so\.\d+\.\d+$/.test(name)) ?? 'liblowrank.so');
}

/** Compiles bench/native/boundary.cpp against the C library that lies beside the addon, and starts it; or why that can't be done. */
export function startCallsFromC(compiler = process.env['CXX'] ?? 'c++'): CallsFromC | { readonly why: string } {
  const sources = ['boundary.cpp', 'device.cpp'].map((file) => path.join(root, 'bench/native', file));
  const library = cLibraryIn(path.dirname(addonFile() ?? ''));
  const missing = [...sources, library].find((file) => !existsSync(file));
  if (missing !== undefined) return { why: `there is no ${missing}` };
  const folder = mkdtempSync(path.join(tmpdir(), 'lowrank-boundary-'));
  const file = path.join(folder, 'boundary');
  const args = ['-std=c++20', '-O2', '-I', path.join(root, 'native/include'), ...sources, library, `-Wl,-rpath,${path.dirname(library)}`, '-o', file];
  const { status, error, stderr } = spawnSync(compiler, args, { encoding: 'utf8' });
  if (status !== 0) {
    rmSync(folder, { recursive: true });
    return { why: error === undefined ? stderr.trim().split('\n').slice(-3).join(' ') : `there is no C++ compiler ${compiler}` };
  }
  const worker = startLineWorker({ file, args: [] });
  return {
    party: ({ T, K, N, r }, threads) => ({ sample: async (repeats) => ((await worker.ask([T, K, N, r, threads, repeats].join(' '))) as { ms: number }).ms }),
    stop: async () => {
      await worker.stop();
      rmSync(folder, { recursive: true });
    },
  };
}
