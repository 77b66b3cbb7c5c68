import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { largeModel } from '../../bench/large-model.ts';
import { AdamW, attachLora, type Device, loadModel, makeBatch, mergeAdapter, type Model, openDevice, saveModel, trainStep } from '../../src/index.ts';
import { goldenPath } from '../golden/read.ts';
import { count, kind, why } from './tested-device.ts';

if (count === 0) console.warn(`whole models on ${kind}: not tested (${why.split(':')[0]})`);

const folder = mkdtempSync(path.join(tmpdir(), 'lowrank-whole-'));
afterAll(() => rmSync(folder, { recursive: true }));
const shape = { family: 'llama', name: 'test', hidden: 32, layers: 4, heads: 2, kvHeads: 1, intermediate: 48, vocab: 61, positions: 32 } as const;

function weightBytes(model: Model): number[] {
  return model.linears.map((linear) => linear.weight.rows * linear.inFeatures * 2);
}

interface Result {
  readonly steps: readonly { readonly loss: number; readonly gradNorm: number }[];
  readonly parameters: Float32Array;
}

/** Two steps of two micro-batches each, checkpointed. */
async function train(device: Device, model: Model): Promise<Result> {
  const adapter = attachLora(model, { rank: 4, alpha: 8, targets: 'all-linear', seed: 1 });
  const optimizer = new AdamW(adapter.parameters(), { lr: 0.01 });
  const window = [3, 5].map((step) => {
    const inputIds = Int32Array.from({ length: 9 }, (_, i) => (step * i + 1) % shape.vocab);
    return makeBatch([{ inputIds, labels: inputIds }]);
  });
  const steps: { loss: number; gradNorm: number }[] = [];
  for (let i = 0; i < 2; i++) {
    const { loss, gradNorm } = await trainStep(model, optimizer, window, { checkpointing: 'blocks' });
    steps.push({ loss, gradNorm });
  }
  return { steps, parameters: await adapter.parameters().parameters.data() };
}

async function hiddenOf(device: Device, model: Model): Promise<Float32Array> {
  using ids = device.tensor(Int32Array.of(1, 5, 2));
  using positions = device.tensor(Int32Array.of(0, 1, 2));
  using offsets = device.tensor(Int32Array.of(0, 3));
  using hidden = model.hidden({ ids, positions, offsets, length: 3 });
  using logits = model.logits(hidden);
  return logits.data();
}

for (const activations of ['f32', 'bf16'] as const) describe.skipIf(count === 0)(`a whole model on ${kind}, ${activations}`, () => {
  it('trains to the same bits with two fifths of its weights on the device as with all', async () => {
    await largeModel(folder, shape);
    const results: Result[] = [];
    let memory = 0;
    for (let i = 0; i < 2; i++) {
      await using device = await openDevice(kind, { activations, weightMemory: memory });
      const model = await loadModel(folder, { device });
      const resident = device.stats().liveBytes;
      results.push(await train(device, model));
      if (i === 0) memory = Math.max(Math.floor(0.4 * resident), Math.ceil(1.5 * Math.max(...weightBytes(model))));
      else expect(resident).toBeLessThan(1.2 * memory + 4096);
      model.dispose();
    }
    expect(results[1]).toEqual(results[0]);
    expect(results[0]?.steps[0]?.loss).toBeGreaterThan(1);
  });

  it.each([0, 50000])('merges, saves, and unmerges a model whose head is its embedding (weightMemory %i)', async (weightMemory) => {
    await using device = await openDevice(kind, { activations, weightMemory });
    const model = await loadModel(goldenPath('families', 'llama_tied'), { device });
    const adapter = attachLora(model, { rank: 2, alpha: 4, targets: ['q_proj', 'down_proj'], seed: 1 });
    const arena = adapter.parameters().parameters;
    arena.upload(Float32Array.from({ length: arena.size }, (_, i) => Math.sin(i) / 10));
    const adapted = await hiddenOf(device, model);
    const live = device.stats().liveBytes;
    const merged = mergeAdapter(model, adapter);
    const out = path.join(folder, `merged-${activations}-${weightMemory}`);
    await saveModel(model, out);
    const [inUse, loaded] = [await hiddenOf(device, model), await loadModel(out, { device })];
    expect(await hiddenOf(device, loaded)).toEqual(inUse);
    loaded.dispose();
    const worst = Math.max(...inUse.map((value, i) => Math.abs(value - (adapted[i] as number))));
    expect(worst).toBeLessThan(activations === 'f32' ? 1e-4 : 0.1);
    expect(worst).toBeGreaterThan(0);
    merged.unmerge();
    expect(await hiddenOf(device, model)).toEqual(adapted);
    // What merging read of the mapped file as a tensor stays on the device with the tensor; nothing else does.
    const read = model.linears.flatMap(({ parts }) => parts).filter(({ name }) => /(q|down)_proj$/.test(name)).reduce((bytes, { matrix }) => bytes + matrix.byteLength, 0);
    expect([live, live + read]).toContain(device.stats().liveBytes);
    model.dispose();
  });
});
