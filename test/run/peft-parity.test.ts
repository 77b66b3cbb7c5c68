import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { goldenPath, readJson, type RunGolden } from '../golden/read.ts';
import { hasSharedData, sharedData } from '../shared-data.ts';
import { jsonLines, lowrank } from '../cli/lowrank.ts';
import { flagsOf, readPeftRun, relativeDistance, writeRows } from './peft-run.ts';

interface Line {
  step: number; loss: number; tokens: number; gradNorm: number; lr: number; tokensPerSecond: number;
}

let folder: string;
beforeEach(() => void (folder = mkdtempSync(path.join(tmpdir(), 'lowrank-parity-'))));
afterEach(() => rmSync(folder, { recursive: true }));

/** Repeats a run of PEFT's through the command line. */
async function repeat(run: string, model: string): Promise<{ lines: Line[]; out: string }> {
  const device = process.env['LOWRANK_TEST_DEVICE'] ?? 'cpu';
  const [data, out] = [path.join(folder, 'rows.jsonl'), path.join(folder, 'out')];
  writeRows(run, data);
  const { status, stdout, stderr } = await lowrank(['train', '--model', model, '--adapter', path.join(run, 'initial_adapter'), '--data', data, '--out', out, '--device', device, '--activations', 'f32', ...flagsOf(readPeftRun(run))]);
  if (status !== 0) throw new Error(stderr);
  return { lines: jsonLines<Line>(stdout), out };
}

function worstLoss(lines: readonly Line[], run: string): number {
  const { log } = readPeftRun(run);
  expect(lines.map(({ step }) => step)).toEqual(log.map(({ step }) => step));
  return Math.max(...lines.map(({ loss }, i) => Math.abs(loss - log[i]!.loss)));
}

describe("lowrank train repeats PEFT's runs, step by step", () => {
  test.each(['llama_masked_loraplus', 'gpt2_masked_warmup'])('%s, a tiny model', async (name) => {
    const run = goldenPath('runs', name);
    const { base_model: base, log } = readJson<RunGolden>('runs', name, 'run.json');
    const { lines, out } = await repeat(run, goldenPath(base));
    expect(worstLoss(lines, run)).toBeLessThan(5e-5);
    expect(relativeDistance(path.join(out, 'adapter_model.safetensors'), path.join(run, 'final_adapter', 'adapter_model.safetensors'))).toBeLessThan(2e-4);
    expect(lines.map(({ tokens }) => tokens)).toEqual(log.map(({ tokens }) => tokens));
    lines.forEach(({ lr, gradNorm }, i) => {
      expect(lr).toBeCloseTo(log[i]!.lr, 12);
      expect(Math.abs(gradNorm - log[i]!.grad_norm)).toBeLessThan(2e-3);
    });
  });

  describe.skipIf(!hasSharedData)('on a pretrained model', () => {
    test.each(['tiny_all_linear', 'tiny_qv_masked'])('%s: losses within 1e-4, the adapter within 2e-3', async (name) => {
      const run = sharedData('parity', name);
      const { lines, out } = await repeat(run, sharedData('models', 'stories260K-fp32'));
      const [loss, adapter] = [worstLoss(lines, run), relativeDistance(path.join(out, 'adapter_model.safetensors'), path.join(run, 'final_adapter', 'adapter_model.safetensors'))];
      console.info(`${name}: worst loss difference ${loss.toExponential(2)}, adapter ${adapter.toExponential(2)}`);
      expect(loss).toBeLessThan(1e-4);
      expect(adapter).toBeLessThan(2e-3);
    });
  });
});
