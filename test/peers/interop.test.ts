import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { AdamW, attachLora, type Device, type LoraConfig, loadAdapter, loadModel, makeBatch, mergeAdapter, type Model, openDevice, scope, setAdapter, trainStep } from '../../src/index.ts';
import { type LineWorker, startLineWorker } from '../../src/cli/line-worker.ts';
import { goldenPath } from '../golden/read.ts';
import { peersPython } from './python.ts';

const ids = [5, 17, 3, 60, 2, 44, 91, 8, 30, 12, 77, 6];

const cases: readonly { readonly name: string; readonly model: string; readonly lora: LoraConfig }[] = [
  { name: 'Llama, all linears', model: 'llama_untied', lora: { rank: 4, alpha: 8, targets: 'all-linear' } },
  { name: 'Llama, rsLoRA with rank and alpha patterns', model: 'llama_untied', lora: { rank: 4, alpha: 6, targets: ['q_proj', 'v_proj', 'down_proj'], useRslora: true, rankPattern: { 'layers.0.self_attn.q_proj': 2 }, alphaPattern: { down_proj: 16 } } },
  { name: 'GPT-2', model: 'gpt2', lora: { rank: 3, alpha: 7, targets: ['c_attn', 'c_proj', 'c_fc'] } },
];

async function logitsByPeft(worker: LineWorker, model: string, adapter: string): Promise<Float32Array> {
  const folder = mkdtempSync(path.join(tmpdir(), 'lowrank-peers-'));
  const out = path.join(folder, 'logits.f32');
  await worker.ask(JSON.stringify({ model, adapter, out, ids }));
  const bytes = readFileSync(out);
  rmSync(folder, { recursive: true });
  return new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength));
}

async function logitsOf(model: Model): Promise<Float32Array> {
  using batch = disposable(model);
  using logits = scope(() => model.logits(model.hidden(batch)));
  return logits.data();
}

function disposable(model: Model) {
  const { device } = model;
  const tensors = {
    ids: device.tensor(Int32Array.from(ids)),
    positions: device.tensor(Int32Array.from(ids, (_, i) => i)),
    offsets: device.tensor(Int32Array.of(0, ids.length)),
  };
  return { ...tensors, length: ids.length, [Symbol.dispose]: () => Object.values(tensors).forEach((tensor) => tensor.dispose()) };
}

const furthest = (a: Float32Array, b: Float32Array): number => a.reduce((worst, x, i) => Math.max(worst, Math.abs(x - (b[i] as number))), a.length === b.length ? 0 : Infinity);

describe.skipIf(peersPython === null)('beside PEFT', () => {
  let device: Device;
  let peft: LineWorker; // one for all: importing it takes seconds
  beforeAll(async () => {
    peft = startLineWorker({ file: peersPython as string, args: [fileURLToPath(new URL('logits.py', import.meta.url))] });
    device = await openDevice(process.env['LOWRANK_TEST_DEVICE'] ?? 'cpu', { activations: 'f32' });
  });
  afterAll(async () => {
    device.close();
    await peft.stop();
  });

  it.each(cases)('PEFT loads what lowrank trained and saved, and gives the same logits: $name', async ({ model: name, lora }) => {
    const folder = goldenPath('families', name);
    const out = mkdtempSync(path.join(tmpdir(), 'lowrank-adapter-'));
    const model = await loadModel(folder, { device });
    const adapter = attachLora(model, lora);
    const optimizer = new AdamW(adapter.parameters(), { lr: 2e-2 });
    const batch = makeBatch([{ inputIds: Int32Array.from(ids), labels: Int32Array.from(ids) }]);
    for (let i = 0; i < 8; i++) await trainStep(model, optimizer, batch);
    await adapter.save(path.join(out, 'adapter'));
    const own = await logitsOf(model);
    setAdapter(model, null);
    expect(furthest(own, await logitsOf(model)), 'the adapter does something').toBeGreaterThan(0.1);
    expect(furthest(own, await logitsByPeft(peft, folder, path.join(out, 'adapter')))).toBeLessThan(1e-4);

    const again = await loadModel(folder, { device });
    const loaded = await loadAdapter(again, path.join(out, 'adapter'));
    expect(furthest(own, await logitsOf(again))).toBe(0);
    const merged = mergeAdapter(again, loaded);
    expect(furthest(own, await logitsOf(again))).toBeLessThan(1e-4);
    merged.unmerge();
    model.dispose();
    again.dispose();
    rmSync(out, { recursive: true });
  }, 120_000);
});
