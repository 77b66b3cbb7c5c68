import { describe, expect, test } from 'vitest';
import { makeBatch } from '../../src/data/batch.ts';
import { openDevice } from '../../src/device.ts';
import { attachLora } from '../../src/lora/attach.ts';
import { loadModel } from '../../src/models/load.ts';
import { AdamW } from '../../src/optim/adamw.ts';
import { trainStep } from '../../src/train/step.ts';
import { goldenPath } from '../golden/read.ts';

/** Enough rows of uneven length that every worker gets a share of every op. */
const rows = Array.from({ length: 24 }, (_, m) => Int32Array.from({ length: 7 + ((5 * m) % 23) }, (_, t) => 3 + ((7 * m + 5 * t) % 80)));
const batch = makeBatch(rows.map((inputIds) => ({ inputIds, labels: inputIds })));

/** Losses, gradient norms and the adapter, in bits, after three steps with dropout. */
async function train(family: string, threads: number): Promise<unknown> {
  await using device = await openDevice('cpu', { threads });
  const model = await loadModel(goldenPath('families', family), { device });
  using adapter = attachLora(model, { rank: 5, targets: 'all-linear', dropout: 0.2, seed: 11 });
  using optimizer = new AdamW(adapter.parameters(), { lr: 0.01 });
  const steps = [];
  for (let i = 0; i < 3; i++) steps.push(await trainStep(model, optimizer, [batch, batch], { clip: 1 }));
  const bits = Buffer.from(await adapter.parameters().parameters.bytes()).toString('hex');
  model.dispose();
  return { steps, bits };
}

describe('a whole training step', () => {
  test.each(['llama_tied', 'qwen3', 'gpt2'])('comes to the same bits with 1, 2 and 4 threads: %s', async (family) => {
    const one = await train(family, 1);
    expect(await train(family, 2)).toEqual(one);
    expect(await train(family, 4)).toEqual(one);
  });
});
