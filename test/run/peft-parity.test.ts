import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { goldenPath, readJson, type RunGolden } from '../golden/read.ts';
import { hasSharedData, sharedData } from '../shared-data.ts';
import { relativeDistance } from './peft-run.ts';
import { repeat, worstLoss } from './repeat.ts';

const flags = ['--device', process.env['LOWRANK_TEST_DEVICE'] ?? 'cpu', '--activations', 'f32'];

let folder: string;
beforeEach(() => void (folder = mkdtempSync(path.join(tmpdir(), 'lowrank-parity-'))));
afterEach(() => rmSync(folder, { recursive: true }));

describe("lowrank train repeats PEFT's runs, step by step", () => {
  test.each(['llama_masked_loraplus', 'gpt2_masked_warmup'])('%s, a tiny model', async (name) => {
    const run = goldenPath('runs', name);
    const { base_model: base, log } = readJson<RunGolden>('runs', name, 'run.json');
    const { lines, out } = await repeat({ run, model: goldenPath(base), folder, flags });
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
      const { lines, out } = await repeat({ run, model: sharedData('models', 'stories260K-fp32'), folder, flags });
      const [loss, adapter] = [worstLoss(lines, run), relativeDistance(path.join(out, 'adapter_model.safetensors'), path.join(run, 'final_adapter', 'adapter_model.safetensors'))];
      console.info(`${name}: worst loss difference ${loss.toExponential(2)}, adapter ${adapter.toExponential(2)}`);
      expect(loss).toBeLessThan(1e-4);
      expect(adapter).toBeLessThan(2e-3);
    });
  });
});
