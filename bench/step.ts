import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { writeRandomModel } from './random-model.ts';
import { shapes } from './shapes.ts';

/** What a child of either side prints. */
interface Run {
  readonly who: string;
  readonly seconds: readonly number[];
  readonly losses: readonly number[];
  readonly importsMiB: number;
  readonly peakMiB: number;
  readonly anonymousMiB?: number;
  readonly fileMiB?: number;
}

export interface StepBenchOptions {
  readonly shape: string;
  /** A Python with torch, transformers and peft; null: no peers. */
  readonly python: string | null;
  readonly rounds: number;
  readonly steps: number;
}

const here = path.dirname(fileURLToPath(import.meta.url));
const [rank, batch, tokens] = [16, 4, 256];

const median = (values: readonly number[]): number => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? NaN;

function lastLine(text: string): Run {
  return JSON.parse(text.trim().split('\n').at(-1) ?? '') as Run;
}

function ours(folder: string, steps: number, checkpointing: string): Run {
  const child = path.join(here, 'step.child.ts');
  return lastLine(execFileSync(process.execPath, ['--import', 'tsx', child, folder, String(rank), String(batch), String(tokens), String(steps), checkpointing], { encoding: 'utf8' }));
}

// The peer at its best: malloc told to keep memory, which makes small models' steps up to 1.25 times faster.
function theirs(python: string, folder: string, steps: number, dtype: string): Run {
  const keepMemory = { MALLOC_TRIM_THRESHOLD_: '8000000000', MALLOC_MMAP_THRESHOLD_: '8000000000' };
  const script = path.join(here, 'peers/step.py');
  return lastLine(execFileSync(python, [script, folder, String(rank), String(batch), String(tokens), String(steps), dtype], { encoding: 'utf8', env: { ...process.env, ...keepMemory }, stdio: ['ignore', 'pipe', 'ignore'] }));
}

export function findPython(chosen: string | undefined): string | null {
  const python = chosen ?? path.join(here, '../.peers/bin/python');
  if (!existsSync(python)) return null;
  return spawnSync(python, ['-c', 'import torch, transformers, peft']).status === 0 ? python : null;
}

/** Training steps (r16 on all linears, 4×256 tokens, bf16 base) beside PEFT, interleaved; tokens/s and peak memory. */
export async function benchStep({ shape, python, rounds, steps }: StepBenchOptions): Promise<unknown> {
  const chosen = shapes[shape];
  if (chosen === undefined) throw new Error(`step: shape must be one of ${Object.keys(shapes).join(', ')} (found ${shape})`);
  const folder = mkdtempSync(path.join(tmpdir(), 'lowrank-step-'));
  try {
    await writeRandomModel(folder, chosen);
    const runs: Run[] = [];
    for (let round = 0; round < rounds; round++) {
      runs.push(ours(folder, steps, 'none'), ours(folder, steps, 'blocks'));
      if (python !== null) runs.push(theirs(python, folder, steps, 'f32'), theirs(python, folder, steps, 'bf16'));
    }
    return summarize(chosen.name, runs);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

function summarize(shape: string, runs: readonly Run[]): unknown {
  const rows = [...new Set(runs.map((run) => run.who))].map((who) => {
    const own = runs.filter((run) => run.who === who);
    const speeds = own.flatMap((run) => run.seconds.slice(1)).map((seconds) => (batch * tokens) / seconds);
    return {
      who,
      tokensPerSecond: Math.round(median(speeds)),
      range: [Math.round(Math.min(...speeds)), Math.round(Math.max(...speeds))],
      peakMiB: Math.round(median(own.map((run) => run.peakMiB))),
      aboveImportsMiB: Math.round(median(own.map((run) => run.peakMiB - run.importsMiB))),
      firstLoss: own[0]?.losses[0],
      lastLoss: own[0]?.losses.at(-1),
    };
  });
  console.table(rows);
  return { shape, rank, batch, tokens, rows };
}
