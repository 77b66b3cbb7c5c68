import { readFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { jsonLines, startLowrank } from '../cli/lowrank.ts';

/** A line of `metrics.jsonl`, or of `--json`. */
export interface Line {
  readonly step: number;
  readonly loss: number;
  readonly gradNorm: number;
  readonly lr: number;
}

/** The steps a run's folder remembers, without what differs between any two runs. */
export function recordedSteps(out: string): Line[] {
  return jsonLines<Line>(readFileSync(path.join(out, 'metrics.jsonl'), 'utf8')).map(({ step, loss, gradNorm, lr }) => ({ step, loss, gradNorm, lr }));
}

/**
 * Starts a run and kills it `after` milliseconds behind its first step's line (or lets it end); killed before its first line, it
 * is killed `after` milliseconds behind its start.
 *
 * @returns the exit status, null when it was killed.
 */
export async function runAndKill(args: readonly string[], after: number, from: 'start' | 'first step'): Promise<number | null> {
  const child = startLowrank(args);
  const ended = new Promise<number | null>((resolve) => child.on('close', resolve));
  const begun = from === 'start' ? Promise.resolve() : new Promise<void>((resolve) => child.stdout?.once('data', () => resolve()));
  await Promise.race([begun, ended]);
  await Promise.race([sleep(after), ended]);
  child.kill('SIGKILL');
  return ended;
}
