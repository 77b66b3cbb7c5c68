import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { largeModel } from '../../bench/large-model.ts';
import { makeBatch, type Batch } from '../../src/data/batch.ts';
import { type Device, openDevice, probeDevices } from '../../src/device.ts';
import { attachLora, type AttachConfig } from '../../src/lora/attach.ts';
import { loadModel } from '../../src/models/load.ts';
import { AdamW } from '../../src/optim/adamw.ts';
import { weightBytes } from '../../src/train/memory-estimate.ts';
import { trainStep, type TrainStepOptions } from '../../src/train/step.ts';
import { goldenPath } from '../golden/read.ts';
import { onCpu } from '../on-cpu.ts';

const cpu = onCpu();

/** Micro-batches of different lengths; one has nothing to train on. */
const window: readonly Batch[] = [5, 9, 4, 7].map((length, m) => {
  const rows = [length, 3].map((size) => Int32Array.from({ length: size }, (_, t) => 3 + ((5 * m + 7 * t) % 80)));
  const batch = makeBatch(rows.map((inputIds) => ({ inputIds, labels: inputIds })));
  return m === 2 ? { ...batch, targets: batch.targets.map(() => -100), tokens: 0 } : batch;
});

/** What some steps leave behind. */
async function train(device: Device, folder: string, config: AttachConfig, { steps, ...options }: TrainStepOptions & { steps: number }): Promise<unknown> {
  const model = await loadModel(folder, { device });
  const adapter = attachLora(model, { rank: 3, alpha: 6, seed: 5, ...config });
  using optimizer = new AdamW(adapter.parameters(), { lr: 0.01 });
  const results = [];
  for (let i = 0; i < steps; i++) {
    const { loss, gradNorm, tokens } = await trainStep(model, optimizer, window, { clip: 1, ...options });
    results.push({ loss, gradNorm, tokens, dropoutStep: adapter.dropoutStep });
  }
  const bits = Buffer.from(await adapter.parameters().parameters.bytes()).toString('hex');
  adapter.dispose();
  model.dispose();
  return { results, bits };
}

describe('micro-batches that go through each layer together', () => {
  test.each([
    ['llama_untied', { targets: 'all-linear', dropout: 0.3 }, 'blocks'],
    ['llama_untied', { targets: ['lm_head', 'v_proj'], dropout: 0.5 }, 'blocks'],
    ['llama_tied', { targets: 'all-linear', dropout: 0.3 }, 'none'],
    ['gpt2', { targets: ['c_attn'] }, 'blocks'],
  ] as const)('give the same bits as one after the other: %s, %o, checkpointing %s', async (family, { targets, ...config }, checkpointing) => {
    const run = (layerByLayer: boolean): Promise<unknown> =>
      train(cpu.device, goldenPath('families', family), { ...config, targets: typeof targets === 'string' ? targets : [...targets] }, { steps: 2, checkpointing, layerByLayer });
    expect(await run(true)).toEqual(await run(false));
  });
});

const shape = { family: 'llama', name: 'test', hidden: 64, layers: 5, heads: 4, kvHeads: 2, intermediate: 160, vocab: 96, positions: 64, tied: false } as const;

describe('weights that take turns', () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'lowrank-layers-'));
  let bytes = 0;
  beforeAll(async () => {
    await largeModel(folder, shape, 250_000);
    const model = await loadModel(folder, { device: cpu.device });
    bytes = weightBytes(model);
    model.dispose();
  });
  afterAll(() => rmSync(folder, { recursive: true }));
  let opened = 0;

  /** What a step comes to with room for a third of the weights, and how many times all of them were brought for it. */
  async function brought(kind: 'cpu' | 'cusim', layerByLayer: boolean | null): Promise<{ result: unknown; times: number }> {
    const trace = path.join(folder, 'trace.json');
    const before = process.env['LOWRANK_TRACE'];
    process.env['LOWRANK_TRACE'] = trace;
    opened += 1;
    try {
      const device = await openDevice(kind, { weightMemory: Math.floor(bytes / 3) });
      const result = await train(device, folder, { targets: 'all-linear', dropout: 0.2 }, { steps: 1, checkpointing: 'blocks', layerByLayer });
      device.close();
      return { result, times: bytesBrought(readFileSync(opened === 1 ? trace : `${trace}.${opened}`, 'utf8')) / bytes };
    } finally {
      if (before === undefined) delete process.env['LOWRANK_TRACE'];
      else process.env['LOWRANK_TRACE'] = before;
    }
  }

  test.each([['cpu'], ['cusim']] as const)('are brought for all micro-batches at once, by itself, and to the same bits: %s', async (kind) => {
    if (probeDevices(kind).count === 0) return console.warn(`${kind}: not tested`);
    const [apart, together] = [await brought(kind, false), await brought(kind, null)];
    expect(together.result).toEqual(apart.result);
    // Up, and down again but for what is still there at the turn; three micro-batches do so one after the other.
    expect(together.times).toBeLessThan(2);
    expect(apart.times).toBeGreaterThan(2 * together.times);
  });
});

/** By a trace: what was there already is looked at again, but not brought. */
function bytesBrought(trace: string): number {
  const here = new Set<string>();
  let sum = 0;
  for (const { name, args } of JSON.parse(trace) as Partial<{ name: string; args: { shapes: string } }>[]) {
    const which = args?.shapes ?? '';
    if (name === 'let_go') here.delete(which);
    if (name !== 'read_ahead' || here.has(which)) continue;
    here.add(which);
    sum += Number(/\+(\d+)/.exec(which)?.[1]);
  }
  return sum;
}
