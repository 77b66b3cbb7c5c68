import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Party } from '../src/cli/turns.ts';
import { startLineWorker } from '../src/cli/line-worker.ts';

/**
 * f32 multiply-adds, bf16 dot products (GFLOP/s); reads, copies, copies around the caches (GB/s; a copy counts both sides). A GPU's bf16 is
 * a large product by cublasLt, its copy one on the device; it has no other.
 */
export type PeakKind = 'f32' | 'bf16' | 'read' | 'copy' | 'stream';

/** Asks the `peak` program what the machine can do at this moment. */
export interface PeakMeter {
  /** Takes about 30 ms (arithmetic) or 300 ms (memory); null: this processor can't. */
  rate(kind: PeakKind, threads: number, isa?: string): Promise<number | null>;
  stop(): Promise<void>;
}

const here = path.dirname(fileURLToPath(import.meta.url));

/** Programs that measure, and where each is made of what; `file`: not called as its target is. */
const programs: Readonly<Record<'peak' | 'gpu_peak' | 'timeline', { readonly source: string; readonly folder: string; readonly file?: string }>> = {
  peak: { source: path.join(here, 'native'), folder: path.join(here, '../build/bench') },
  gpu_peak: { source: path.join(here, 'cuda'), folder: path.join(here, '../build/bench/cuda') },
  timeline: { source: path.join(here, 'cuda'), folder: path.join(here, '../build/bench/cuda'), file: 'timeline.so' },
};

const fileOf = (target: keyof typeof programs): string => path.join(programs[target].folder, programs[target].file ?? target);

/** Builds a program; returns where it lies, or the reason why not. */
export function buildNative(target: keyof typeof programs): { file: string } | { why: string } {
  const { source, folder } = programs[target];
  mkdirSync(folder, { recursive: true });
  const steps = [['-S', source, '-B', folder, '-DCMAKE_BUILD_TYPE=Release'], ['--build', folder, '--target', target, '--parallel', '2']];
  for (const args of steps) {
    const { status, error, stderr, stdout } = spawnSync('cmake', args, { encoding: 'utf8' });
    if (status !== 0) return { why: (error?.message ?? (stderr || stdout).trim().split('\n').slice(-3).join(' ')) };
  }
  return { file: fileOf(target) };
}

/**
 * The meter of a device of this kind, or null (said aloud) where its program can't be built: figures then come without a share of the peak.
 * An emulator has no peak.
 */
export function openPeakMeter(kind = 'cpu'): PeakMeter | null {
  if (kind === 'cusim') return null;
  const built = kind === 'cpu' ? buildNative('peak') : alreadyBuilt('gpu_peak');
  if ('why' in built) {
    console.log(`peak: not measured, its program needs cmake and a compiler (${built.why})`);
    return null;
  }
  return serveRates(built.file);
}

/** A machine with a GPU may have got the program without what it takes to build it. */
export function alreadyBuilt(target: keyof typeof programs): { file: string } | { why: string } {
  const file = fileOf(target);
  return existsSync(file) ? { file } : buildNative(target);
}

function serveRates(file: string): PeakMeter {
  const worker = startLineWorker({ file, args: ['serve'] });
  return {
    rate: async (kind, threads, isa = '') => ((await worker.ask(`${kind} ${threads} ${isa}`)) as { rate: number | null }).rate,
    stop: () => worker.stop(),
  };
}

/** The meter as one of those that take turns: its samples are rates, not milliseconds. */
export function peakParty(meter: PeakMeter, kind: PeakKind, threads: number): Party {
  return { once: true, sample: async () => (await meter.rate(kind, threads)) ?? NaN };
}
