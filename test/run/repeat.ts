import path from 'node:path';
import { expect } from 'vitest';
import { jsonLines, lowrank, type RunOptions } from '../cli/lowrank.ts';
import { flagsOf, readPeftRun, writeRows } from './peft-run.ts';

/** What `--json` prints of a step. */
export interface Line {
  step: number; loss: number; tokens: number; gradNorm: number; lr: number; tokensPerSecond: number;
}

export interface Repetition extends Pick<RunOptions, 'env'> {
  /** Folder of PEFT's run. */
  readonly run: string;
  readonly model: string;
  /** Where rows and the adapter are written. */
  readonly folder: string;
  readonly flags?: readonly string[];
}

/** Repeats a run of PEFT's through the command line. */
export async function repeat({ run, model, folder, flags = [], env = {} }: Repetition): Promise<{ lines: Line[]; out: string }> {
  const [data, out] = [path.join(folder, 'rows.jsonl'), path.join(folder, 'out')];
  writeRows(run, data);
  const args = ['train', '--model', model, '--adapter', path.join(run, 'initial_adapter'), '--data', data, '--out', out, ...flagsOf(readPeftRun(run)), ...flags];
  const { status, stdout, stderr } = await lowrank(args, { env });
  if (status !== 0) throw new Error(stderr);
  return { lines: jsonLines<Line>(stdout), out };
}

/** The greatest difference from PEFT's loss at any step. */
export function worstLoss(lines: readonly Line[], run: string): number {
  const { log } = readPeftRun(run);
  expect(lines.map(({ step }) => step)).toEqual(log.map(({ step }) => step));
  return Math.max(...lines.map(({ loss }, i) => Math.abs(loss - log[i]!.loss)));
}
