import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { findCheckpoints } from '../../src/train/checkpoint.ts';
import { lowrank } from '../cli/lowrank.ts';
import { goldenPath } from '../golden/read.ts';
import { recordedSteps, runAndKill } from './killed-run.ts';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'lowrank-kill-'));
  const row = (s: number): string => JSON.stringify({ input_ids: Array.from({ length: 6 + (s % 7) }, (_, t) => 3 + ((5 * s + 3 * t) % 90)) });
  writeFileSync(path.join(folder, 'rows.jsonl'), Array.from({ length: 30 }, (_, s) => `${row(s)}\n`).join(''));
});
afterEach(() => rmSync(folder, { recursive: true }));

const command = (out: string): string[] => [
  'train', '--model', goldenPath('families', 'llama_tied'), '--data', path.join(folder, 'rows.jsonl'), '--out', path.join(folder, out), '--rank', '4', '--dropout', '0.1',
  '--accumulate', '2', '--batch-size', '2', '--steps', '60', '--lr', '0.01', '--lora-plus', '2', '--schedule', 'cosine', '--save-every', '1', '--seed', '9', '--json', '--resume',
];

describe('kill -9', () => {
  test('at random moments leaves a whole checkpoint each time, and the run that goes on makes the same losses', { timeout: 180_000 }, async () => {
    expect((await lowrank(command('whole'))).status).toBe(0);
    let last = 0;
    for (let kill = 0; kill < 5; kill++) {
      // Delays are random on purpose: each run of this test tries others. A failure prints the delay.
      const after = Math.random() * 250;
      await runAndKill(command('killed'), after, 'first step');
      const newest = (await findCheckpoints(path.join(folder, 'killed')))[0];
      expect(newest?.step ?? 0, `killed ${after} ms behind the first step`).toBeGreaterThanOrEqual(last);
      last = newest?.step ?? 0;
    }
    const finished = await lowrank(command('killed'));
    expect(finished.status).toBe(0);
    expect(recordedSteps(path.join(folder, 'killed'))).toEqual(recordedSteps(path.join(folder, 'whole')));
    const again = await lowrank(command('killed'));
    expect([again.status, again.stdout]).toEqual([0, '']);
    expect(again.stderr).toContain('complete already');
  });
});
