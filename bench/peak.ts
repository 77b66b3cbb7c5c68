import { spawnSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Party } from '../src/cli/turns.ts';
import { startLineWorker } from './line-worker.ts';

/** f32 multiply-adds, bf16 dot products (GFLOP/s); reads, copies, copies around the caches (GB/s; a copy counts both sides). */
export type PeakKind = 'f32' | 'bf16' | 'read' | 'copy' | 'stream';

/** Asks the `peak` program what the machine can do at this moment. */
export interface PeakMeter {
  /** Takes about 30 ms (arithmetic) or 300 ms (memory); null: this processor can't. */
  rate(kind: PeakKind, threads: number, isa?: string): Promise<number | null>;
  stop(): Promise<void>;
}

const here = path.dirname(fileURLToPath(import.meta.url));
const folder = path.join(here, '../build/bench');

/** Builds a target of bench/native; returns where it lies, or the reason why not. */
export function buildNative(target: string): { file: string } | { why: string } {
  mkdirSync(folder, { recursive: true });
  const steps = [['-S', path.join(here, 'native'), '-B', folder, '-DCMAKE_BUILD_TYPE=Release'], ['--build', folder, '--target', target, '--parallel', '2']];
  for (const args of steps) {
    const { status, error, stderr, stdout } = spawnSync('cmake', args, { encoding: 'utf8' });
    if (status !== 0) return { why: (error?.message ?? (stderr || stdout).trim().split('\n').slice(-3).join(' ')) };
  }
  return { file: path.join(folder, target) };
}

/** The meter, or null (said aloud) where the program can't be built: figures then come without a share of the peak. */
export function openPeakMeter(): PeakMeter | null {
  const built = buildNative('peak');
  if ('why' in built) {
    console.log(`peak: not measured, bench/native needs cmake and a C++ compiler (${built.why})`);
    return null;
  }
  const worker = startLineWorker({ file: built.file, args: ['serve'] });
  return {
    rate: async (kind, threads, isa = '') => ((await worker.ask(`${kind} ${threads} ${isa}`)) as { rate: number | null }).rate,
    stop: () => worker.stop(),
  };
}

/** The meter as one of those that take turns: its samples are rates, not milliseconds. */
export function peakParty(meter: PeakMeter, kind: PeakKind, threads: number): Party {
  return { once: true, sample: async () => (await meter.rate(kind, threads)) ?? NaN };
}
