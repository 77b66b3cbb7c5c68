import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { count, kind, why } from '../cusim/tested-device.ts';
import { goldenPath, readJson, type RunGolden } from '../golden/read.ts';
import { relativeDistance } from './peft-run.ts';
import { repeat, worstLoss } from './repeat.ts';

if (count === 0) console.warn(`${kind}: 5 of PEFT's runs not repeated (${why})`);
const checkedPlugin = fileURLToPath(new URL('../../build/Release/liblowrank_cusim_checked.so', import.meta.url));

let folder: string;
beforeEach(() => void (folder = mkdtempSync(path.join(tmpdir(), 'lowrank-emulated-'))));
afterEach(() => rmSync(folder, { recursive: true }));

describe.skipIf(count === 0)(`the CUDA kernels repeat PEFT's runs, step by step (${kind})`, () => {
  // In 16 bits W0 is rounded too; f16 has three bits more than bf16, and comes eight times nearer.
  test.each([
    { name: 'llama_masked_loraplus', activations: 'f32', mode: 'fast', loss: 5e-5, adapter: 2e-4 },
    { name: 'gpt2_masked_warmup', activations: 'f32', mode: 'checked', loss: 5e-5, adapter: 2e-4 },
    { name: 'llama_masked_loraplus', activations: 'bf16', mode: 'checked', loss: 0.1, adapter: 0.03 },
    { name: 'llama_masked_loraplus', activations: 'f16', mode: 'fast', loss: 0.0125, adapter: 0.004 },
    { name: 'gpt2_masked_warmup', activations: 'bf16', mode: 'fast', loss: 0.03, adapter: 0.01 },
  ])('$name with $activations activations, $mode', async ({ name, activations, mode, loss, adapter }) => {
    const run = goldenPath('runs', name);
    const model = goldenPath(readJson<RunGolden>('runs', name, 'run.json').base_model);
    const env = mode === 'checked' && kind === 'cusim' ? { LOWRANK_CUSIM_PLUGIN: checkedPlugin } : {};
    const { lines, out } = await repeat({ run, model, folder, env, flags: ['--device', kind, '--activations', activations] });
    const found = { loss: worstLoss(lines, run), adapter: relativeDistance(path.join(out, 'adapter_model.safetensors'), path.join(run, 'final_adapter', 'adapter_model.safetensors')) };
    console.info(`${name}, ${activations}: worst loss difference ${found.loss.toExponential(2)}, adapter ${found.adapter.toExponential(2)}`);
    expect(found.loss).toBeLessThan(loss);
    expect(found.adapter).toBeLessThan(adapter);
  });
});
