import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { attachLora } from '../../src/lora/attach.ts';
import { loadAdapter } from '../../src/lora/load.ts';
import { mergeAdapter } from '../../src/lora/merge.ts';
import { setAdapter } from '../../src/lora/model-adapters.ts';
import { loadModel } from '../../src/models/load.ts';
import type { Model } from '../../src/models/model.ts';
import { AdamW } from '../../src/optim/adamw.ts';
import { Sgd } from '../../src/optim/sgd.ts';
import { scope } from '../../src/scope.ts';
import { evaluate } from '../../src/train/evaluate.ts';
import { trainStep } from '../../src/train/step.ts';
import { uploadBatch } from '../../src/train/token-loss.ts';
import { f32, goldenPath, i32, readJson, readTensors, type FamilyGolden, type RunGolden } from '../golden/read.ts';
import { onCpu } from '../on-cpu.ts';
import { hasSharedData, sharedData } from '../shared-data.ts';
import { fromGoldens, furthest, matricesOf, packRows, readBatches, relativeError } from './replay.ts';

const cpu = onCpu();
let folder = '';
beforeAll(async () => void (folder = await mkdtemp(path.join(tmpdir(), 'lowrank-goldens-'))));
afterAll(() => rm(folder, { recursive: true, force: true }));

const { families } = readJson<{ families: FamilyGolden[] }>('families', 'index.json');
type Batch = ReturnType<typeof packRows>;

async function logitsOf(model: Model, batch: Batch): Promise<Float32Array> {
  using logits = scope(() => model.logits(model.hidden(uploadBatch(cpu.device, batch))));
  return logits.data();
}

describe.each(families)('$name', ({ name, model: base, T, loss, tolerance }) => {
  const golden = readTensors('families', name, 'golden.safetensors');
  const ids = i32(golden, 'input_ids');
  const batch = packRows([0, 1].map((row) => ({ ids: ids.subarray(row * T, (row + 1) * T), labels: ids.subarray(row * T, (row + 1) * T), mask: new Int32Array(T).fill(1) })));
  const adapterFolder = goldenPath('families', name, 'adapter');

  test('logits with and without adapter, loss and every gradient are PEFT\'s', async () => {
    using model = disposable(await loadModel(goldenPath('families', base), { device: cpu.device }));
    using adapter = await loadAdapter(model, adapterFolder);
    expect(furthest(await logitsOf(model, batch), f32(golden, 'logits_adapter'))).toBeLessThan(tolerance.logits);
    using optimizer = new Sgd(adapter.parameters(), { lr: 0 });
    for (const checkpointing of ['none', 'blocks'] as const) {
      const step = await trainStep(model, optimizer, batch, { checkpointing });
      expect(Math.abs(step.loss - loss)).toBeLessThan(tolerance.logits);
      for (const [key, gradient] of await matricesOf(adapter, 'gradients')) {
        expect(furthest(gradient, f32(golden, `grad.${key}`)), key).toBeLessThan(tolerance.grads);
      }
    }
    expect(Math.abs((await evaluate(model, [batch])).loss - loss)).toBeLessThan(tolerance.logits);
    setAdapter(model, null);
    expect(furthest(await logitsOf(model, batch), f32(golden, 'logits'))).toBeLessThan(tolerance.logits);
  });

  test('the adapter is saved as PEFT saved it: tensors byte for byte, the config by content', async () => {
    using model = disposable(await loadModel(goldenPath('families', base), { device: cpu.device }));
    using adapter = await loadAdapter(model, adapterFolder, { trainable: false });
    const out = path.join(folder, name);
    await adapter.save(out);
    const read = (where: string, file: string): Promise<Buffer> => readFile(path.join(where, file));
    expect(Buffer.compare(await read(out, 'adapter_model.safetensors'), await read(adapterFolder, 'adapter_model.safetensors'))).toBe(0);
    const config = async (where: string): Promise<unknown> => JSON.parse(String(await read(where, 'adapter_config.json')));
    expect(await config(out)).toEqual(await config(adapterFolder));
  });

  test('merged, the base gives the adapter\'s logits, as far as its dtype can hold them; unmerged, its own', async () => {
    using model = disposable(await loadModel(goldenPath('families', base), { device: cpu.device }));
    const before = await logitsOf(model, batch);
    using adapter = await loadAdapter(model, adapterFolder, { trainable: false });
    const merged = mergeAdapter(model, adapter);
    const wanted = f32(golden, 'logits_adapter');
    const largest = wanted.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
    const exact = model.facts.dtype === 'f32';
    expect(furthest(await logitsOf(model, batch), wanted)).toBeLessThan(exact ? 2 * tolerance.logits : 0.1 * largest);
    merged.unmerge();
    setAdapter(model, null);
    expect(await logitsOf(model, batch)).toEqual(before);
  });
});

function disposable(model: Model): Model & Disposable {
  return Object.assign(model, { [Symbol.dispose]: () => model.dispose() });
}

interface Bands {
  readonly loss: number;
  readonly gradients: number; // relative L2
  readonly adapter: number; // relative L2
}

function replay(where: string, baseFolder: (run: RunGolden) => string, bands: (run: RunGolden) => Bands): () => Promise<void> {
  return async () => {
    const run = readJson<RunGolden>(fromGoldens(where), 'run.json');
    const { lr, betas, eps, wd: weightDecay, clip: greatest, loraplus_lr_ratio: loraPlusRatio = 1 } = run.config;
    const clip = greatest ?? 0; // null in JSON: not clipped
    const within = bands(run);
    const tensors = (name: string) => readTensors(fromGoldens(where), name);
    using model = disposable(await loadModel(baseFolder(run), { device: cpu.device }));
    using adapter = await loadAdapter(model, path.join(where, 'initial_adapter'));
    using optimizer = new AdamW(adapter.parameters(), { lr, betas, eps, weightDecay, loraPlusRatio });
    const { steps, evaluation } = readBatches(where);
    const gradients = tensors('grads.safetensors');
    expect(Math.abs((await evaluate(model, evaluation)).loss - run.eval_loss_before)).toBeLessThan(within.loss);
    let checked = 0;
    for (const [i, window] of steps.entries()) {
      const log = run.log[i]!;
      const step = await trainStep(model, optimizer, window, { clip, lr: log.lr });
      expect(Math.abs(step.loss - log.loss), `loss of step ${i + 1}`).toBeLessThan(within.loss);
      expect(Math.abs(step.gradNorm / log.grad_norm - 1), `gradient norm of step ${i + 1}`).toBeLessThan(10 * within.gradients);
      expect([step.tokens, step.skipped]).toEqual([log.tokens ?? step.tokens, false]); // not every log has its tokens
      const prefix = `step${i + 1}.`;
      const wanted = new Map([...gradients].filter(([key]) => key.startsWith(prefix)).map(([key, value]) => [key.slice(prefix.length), value]));
      if (wanted.size === 0) continue;
      checked += 1;
      expect(relativeError(await matricesOf(adapter, 'gradients'), wanted), `gradients of step ${i + 1}`).toBeLessThan(within.gradients);
    }
    expect([optimizer.steps, checked > 1]).toEqual([run.log.length, true]);
    expect(relativeError(await matricesOf(adapter, 'parameters'), tensors('final_adapter/adapter_model.safetensors'))).toBeLessThan(within.adapter);
    expect(Math.abs((await evaluate(model, evaluation)).loss - run.eval_loss_after)).toBeLessThan(10 * within.loss);
  };
}

describe('a training run by PEFT is followed step by step', () => {
  test.each(['llama_masked_loraplus', 'gpt2_masked_warmup'])('%s', async (name) => {
    await replay(goldenPath('runs', name), ({ base_model: base }) => goldenPath(base), () => ({ loss: 2e-5, gradients: 2e-5, adapter: 2e-5 }))();
  });
  test.skipIf(!hasSharedData).each(['tiny_all_linear', 'tiny_qv_masked'])('%s', async (name) => {
    await replay(sharedData('parity', name), ({ config: { model } }) => sharedData('models', model), () => ({ loss: 1e-5, gradients: 1e-4, adapter: 1e-4 }))();
  });
});

test('an adapter on an untied head trains through the logits, and its gradient is the head\'s share', async () => {
  using model = disposable(await loadModel(goldenPath('families', 'llama_untied'), { device: cpu.device }));
  using adapter = attachLora(model, { rank: 2, alpha: 4, targets: ['lm_head', 'q_proj'] });
  using optimizer = new AdamW(adapter.parameters(), { lr: 0.02 });
  const ids = Int32Array.of(3, 8, 20, 41, 9);
  const batch = packRows([{ ids, labels: ids, mask: new Int32Array(5).fill(1) }]);
  const losses: number[] = [];
  for (let i = 0; i < 20; i++) losses.push((await trainStep(model, optimizer, batch)).loss);
  expect(Math.abs((await evaluate(model, [batch])).loss - losses.at(-1)!)).toBeLessThan(1);
  expect(losses.at(-1)).toBeLessThan(0.5 * losses[0]!);
});
