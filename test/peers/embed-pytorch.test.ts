import { execFile } from 'node:child_process';
import path from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';
import { built, hasLibrary, root } from '../capi/native.ts';
import { peersPython } from './python.ts';

interface Run {
  readonly layers: number;
  readonly peft: readonly number[];
  readonly lowrank: readonly number[];
}

describe.skipIf(peersPython === null || !hasLibrary)('examples/embed-pytorch', () => {
  it('a Hugging Face model trains on lowrank to the losses that it has on PEFT, 20 steps', async () => {
    const args = [path.join(root, 'examples/embed-pytorch/train.py'), '--steps', '20', '--batch', '2', '--tokens', '24'];
    const { stdout } = await promisify(execFile)(peersPython as string, args, { env: { ...process.env, LOWRANK_LIBRARY: path.join(built, 'liblowrank.so') } });
    const { layers, peft, lowrank } = JSON.parse(stdout.trim().split('\n').at(-1) as string) as Run;
    expect([layers, peft.length, lowrank.length]).toEqual([21, 20, 20]);
    expect(peft[19], 'the adapter learns').toBeLessThan((peft[0] as number) - 0.1);
    expect(Math.max(...peft.map((loss, i) => Math.abs(loss - (lowrank[i] ?? NaN))))).toBeLessThan(1e-5);
  }, 120_000);
});
