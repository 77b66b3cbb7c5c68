import { describe, expect, test } from 'vitest';
import { makeBatch } from '../../src/data/batch.ts';
import { attachLora } from '../../src/lora/attach.ts';
import { type Device, openDevice, probeDevices } from '../../src/device.ts';
import { loadModel } from '../../src/models/load.ts';
import type { Checkpointing, Model } from '../../src/models/model.ts';
import { AdamW } from '../../src/optim/adamw.ts';
import { estimateMemory, memoryBeforehand } from '../../src/train/memory-estimate.ts';
import { trainStep } from '../../src/train/step.ts';
import { goldenPath } from '../golden/read.ts';
import { onCpu } from '../on-cpu.ts';

const cpu = onCpu();

const cases: [string, string | string[], Checkpointing][] = [
  ['llama_tied', 'all-linear', 'none'],
  ['llama_tied', ['q_proj', 'v_proj'], 'none'],
  ['llama_untied', 'all-linear', 'blocks'],
  ['llama_untied', ['lm_head', 'v_proj'], 'none'],
  ['gpt2', 'all-linear', 'none'],
  ['gpt2', ['c_attn'], 'blocks'],
];

/** The estimate of a step as a share of what the step took. */
async function shareOfPeak(device: Device, family: string, targets: string | string[], checkpointing: Checkpointing, together = 1): Promise<number> {
  using model = disposing(await loadModel(goldenPath('families', family), { device }));
  const rows = Array.from({ length: 12 }, () => Int32Array.from({ length: 32 }, (_, i) => 3 + ((7 * i) % 90)));
  const batch = makeBatch(rows.map((inputIds) => ({ inputIds, labels: inputIds })));
  const before = device.stats().liveBytes;
  using adapter = attachLora(model, { rank: 4, targets });
  using optimizer = new AdamW(adapter.parameters(), { lr: 1e-3 });
  device.resetPeak();
  await trainStep(model, optimizer, Array.from({ length: together }, () => batch), { checkpointing, layerByLayer: together > 1 });
  const peak = device.stats().peakBytes - before;
  return estimateMemory(model, adapter, { tokens: batch.inputIds.length, checkpointing, together }).total / peak;
}

const disposing = (model: Model): Model & Disposable => Object.assign(model, { [Symbol.dispose]: () => model.dispose() });

describe('memory estimate', () => {
  test.each(cases)('%s, %s, checkpointing %s: between the peak and a quarter above', async (family, targets, checkpointing) => {
    const share = await shareOfPeak(cpu.device, family, targets, checkpointing);
    expect(share).toBeGreaterThan(0.95);
    expect(share).toBeLessThan(1.25);
  });

  test.each(['llama_tied', 'llama_untied', 'gpt2'])('beforehand it is known within a factor of two: %s', async (family) => {
    using model = disposing(await loadModel(goldenPath('families', family), { device: cpu.device }));
    using adapter = attachLora(model, { rank: 4, targets: 'all-linear' });
    for (const checkpointing of ['none', 'blocks'] as const) {
      const size = { tokens: 384, checkpointing, together: 2 };
      const share = memoryBeforehand(model.facts, 'f32', 4, size) / estimateMemory(model, adapter, size).total;
      expect(share).toBeGreaterThanOrEqual(1);
      expect(share).toBeLessThan(2);
    }
  });

  test.each(cases)('of three micro-batches that go through the layers together: %s, %s, checkpointing %s', async (family, targets, checkpointing) => {
    const share = await shareOfPeak(cpu.device, family, targets, checkpointing, 3);
    expect(share).toBeGreaterThan(0.95);
    expect(share).toBeLessThan(1.25);
  });

  test.skipIf(probeDevices('cusim').count === 0).each(cases.filter(([family]) => family !== 'gpt2'))('with bf16 activations too: %s, %s, checkpointing %s', async (family, targets, checkpointing) => {
    await using device = await openDevice('cusim', { activations: 'bf16' });
    const share = await shareOfPeak(device, family, targets, checkpointing);
    expect(share).toBeGreaterThan(0.95);
    expect(share).toBeLessThan(1.25);
  });
});
