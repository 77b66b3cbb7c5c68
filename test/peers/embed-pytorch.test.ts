import { execFile } from 'node:child_process';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';
import { built, hasLibrary, root } from '../capi/native.ts';
import { peersPython } from './python.ts';

interface Run {
  /** GOMP_SPINCOUNT. */
  readonly spin: number;
  readonly layers: number;
  readonly peft: readonly number[];
  readonly lowrank: readonly number[];
  readonly peftMs: number;
  readonly lowrankMs: number;
  readonly ratio: number;
}

const example = path.join(root, 'examples/embed-pytorch');
const python = async (...args: string[]): Promise<string[]> => {
  const { GOMP_SPINCOUNT: _, ...env } = process.env;
  const { stdout } = await promisify(execFile)(peersPython as string, args, { env: { ...env, LOWRANK_LIBRARY: path.join(built, 'liblowrank.so') } });
  return stdout.trim().split('\n');
};

describe.skipIf(peersPython === null || !hasLibrary)('examples/embed-pytorch', () => {
  it('a Hugging Face model trains on lowrank to the losses that it has on PEFT, 20 steps, however long idle threads look for work', async () => {
    const lines = await python(path.join(example, 'train.py'), '--steps', '20', '--batch', '2', '--tokens', '24');
    const runs = lines.map((line) => JSON.parse(line) as Run);
    expect(runs.map(({ spin }) => spin)).toEqual([300_000, 1_000]);
    for (const { spin, layers, peft, lowrank, peftMs, lowrankMs, ratio } of runs) {
      console.log(`embed-pytorch, GOMP_SPINCOUNT=${spin}: a step takes ${peftMs.toFixed(1)} ms on PEFT, ${lowrankMs.toFixed(1)} ms on lowrank (${ratio.toFixed(2)} of it)`);
      expect([layers, peft.length, lowrank.length]).toEqual([21, 20, 20]);
      expect(peft[19], 'the adapter learns').toBeLessThan((peft[0] as number) - 0.1);
      expect(Math.max(...peft.map((loss, i) => Math.abs(loss - (lowrank[i] ?? NaN))))).toBeLessThan(1e-5);
    }
  }, 120_000);

  it('a layer that does more than plain LoRA is refused, and told what more', async () => {
    const said = await python(fileURLToPath(new URL('embed-pytorch-refusals.py', import.meta.url)), example);
    expect(said).toEqual([
      expect.stringContaining('(found dropout (lora_dropout 0.1))'),
      expect.stringContaining('(found DoraLinearVariant)'),
      expect.stringContaining('(found lora_bias)'),
    ]);
  }, 120_000);
});
