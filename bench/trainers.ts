import path from 'node:path';
import { fileURLToPath } from 'node:url';
import type { MatmulPrecision } from '../src/device.ts';
import { type LineWorker, startLineWorker } from '../src/cli/line-worker.ts';
import { peerCommand, type Peers } from './peers.ts';

type Checkpointing = 'none' | 'blocks';

/** What is trained on: rank on all linears, batch × tokens random ones. */
export interface Training {
  readonly rank: number;
  readonly batch: number;
  readonly tokens: number;
}

export const usualTraining: Training = { rank: 16, batch: 4, tokens: 256 };

/** One side's way of training: a process of its own, so that its peak memory is its own. */
export interface Trainer {
  readonly who: string;
  readonly checkpointing: Checkpointing;
  /** `env` for this run alone. */
  start(folder: string, training: Training, env?: Readonly<Record<string, string>>): LineWorker;
}

export interface StepAnswer {
  readonly ms: number;
  readonly loss: number;
}

/** MiB. `imports` is what the process held before there was a model. */
export interface MemoryAnswer {
  readonly importsMiB: number;
  readonly peakMiB: number;
  readonly anonymousMiB: number;
  readonly fileMiB: number;
  /** On the device: what tensors took at most, and what was taken from it. */
  readonly devicePeakMiB?: number;
  readonly deviceReservedMiB?: number;
  readonly savedMiB?: number;
}

const child = path.join(path.dirname(fileURLToPath(import.meta.url)), 'step.child.ts');

export interface OurTrainer {
  readonly checkpointing?: Checkpointing; // 'none'
  readonly precision?: MatmulPrecision; // 'highest'
  readonly device?: string; // 'cpu'
  readonly env?: Readonly<Record<string, string>>;
}

export function ourTrainer({ checkpointing = 'none', precision = 'highest', device = 'cpu', env = {} }: OurTrainer = {}): Trainer {
  return {
    who: `lowrank${precision === 'medium' ? ', medium' : ''}${checkpointing === 'blocks' ? ', checkpointed' : ''}`,
    checkpointing,
    start: (folder, { rank, batch, tokens }, more) =>
      startLineWorker({ file: process.execPath, args: ['--import', 'tsx', child, folder, ...[rank, batch, tokens].map(String), checkpointing, precision, device], env: { ...env, ...more } }),
  };
}

export function peftTrainer(peers: Peers, dtype: 'f32' | 'bf16' | 'f16', checkpointing: Checkpointing, compiled = false): Trainer {
  return {
    who: `PEFT ${dtype}${compiled ? ', compiled' : ''}${checkpointing === 'blocks' ? ', checkpointed' : ''}`,
    checkpointing,
    start: (folder, { rank, batch, tokens }, more) => {
      const command = peerCommand(peers, 'step.py', [folder, rank, batch, tokens, checkpointing, dtype, peers.gpu ? 'cuda' : 'cpu', compiled ? 'compiled' : 'eager']);
      return startLineWorker({ ...command, env: { ...command.env, ...more } });
    },
  };
}

/**
 * B is zero at the first step, so everybody computes the base model's loss on the same tokens; 16-bit arithmetic may stray by its
 * rounding. @throws Error that names who strays
 */
export function checkLosses(bench: string, runs: readonly { readonly trainer: Trainer; readonly firstLoss: number }[]): void {
  const wanted = (runs.find(({ trainer }) => trainer.who === 'PEFT f32') ?? runs[0])?.firstLoss ?? NaN;
  for (const { trainer: { who }, firstLoss } of runs) {
    const allowed = /bf16|f16|medium/.test(who) ? 0.05 : 1e-3;
    if (!(Math.abs(firstLoss - wanted) <= allowed)) throw new Error(`${bench}: the first loss of ${who} must be ${wanted} within ${allowed} (found ${firstLoss})`);
  }
}
