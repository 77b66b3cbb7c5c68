import { describe, expect, test } from 'vitest';
import { type Device, openDevice } from '../../src/device.ts';
import { loadModel } from '../../src/models/load.ts';
import type { Checkpointing, Model, TokenBatch } from '../../src/models/model.ts';
import type { Linear } from '../../src/nn/linear.ts';
import { Tape } from '../../src/tape.ts';
import type { Tensor } from '../../src/tensor.ts';
import { goldenPath } from '../golden/read.ts';
import { live } from './run.ts';

/** Numbers that look random and aren't. */
function numbers(count: number, seed: number): Float32Array {
  return Float32Array.from({ length: count }, (_, i) => Math.sin((i + 1) * 12.9898 + seed) * 0.2);
}

/** An adapter of rank 2 on every part of these layers; returns what must be disposed of. */
function adapt(device: Device, linears: readonly Linear[]): Tensor[] {
  return linears.flatMap((linear, at) => {
    const out = linear.outFeatures;
    const ranks = out.map(() => 2);
    const rows = 2 * out.length;
    const a = device.tensor(numbers(rows * linear.inFeatures, at), [rows, linear.inFeatures]);
    const b = device.tensor(numbers(2 * linear.weight.rows, at + 0.5));
    const [da, db] = [device.tensor(new Float32Array(a.size), a.shape), device.tensor(new Float32Array(b.size))];
    linear.lora = { a, b, da, db, ranks, scales: ranks.map(() => 0.5), dropout: { p: 0.25, seed: 5, layers: out.map((_, i) => at * 3 + i), step: 1 } };
    return [a, b, da, db];
  });
}

interface Pass {
  saved: number; // bytes kept for the way back
  gradients: Float32Array[];
}

async function pass(model: Model, batch: TokenBatch, checkpointing: Checkpointing): Promise<Pass> {
  const { device } = model;
  const loras = model.linears.flatMap(({ lora }) => (lora === null ? [] : [lora]));
  for (const { da, db } of loras) for (const gradient of [da, db]) gradient?.upload(new Float32Array(gradient.size));
  using tape = new Tape();
  using hidden = tape.record(() => model.hidden(batch, checkpointing));
  const saved = tape.savedBytes;
  for (const gradient of tape.backward(hidden, device.tensor(numbers(hidden.size, 9), hidden.shape)).values()) gradient.dispose();
  const gradients = await Promise.all(loras.flatMap(({ da, db }) => [da, db]).map((gradient) => (gradient as Tensor).data()));
  return { saved, gradients };
}

const cases = [
  { name: 'llama_tied', adapted: 'every layer', from: 0 },
  { name: 'qwen3', adapted: 'every layer', from: 0 },
  { name: 'gpt2', adapted: 'every layer', from: 0 },
  { name: 'llama_untied', adapted: 'the second block', from: 4 },
  { name: 'qwen3_window', adapted: 'the second block', from: 4 },
];

describe.each(cases)('checkpointed blocks of $name, adapters on $adapted', ({ name, from }) => {
  test('give the same gradients, bit for bit, with less kept and nothing left', async () => {
    using device = await openDevice('cpu');
    const model = await loadModel(goldenPath('families', name), { device });
    const loaded = live(device);
    const batch = {
      ids: device.tensor(Int32Array.from({ length: 21 }, (_, i) => 3 + ((i * 31) % 90))),
      positions: device.tensor(Int32Array.from({ length: 21 }, (_, i) => (i < 8 ? i : i - 8))),
      offsets: device.tensor(Int32Array.of(0, 8, 21)),
      length: 13,
    };
    const blockLinears = model.linears.filter(({ parts }) => parts[0]?.name !== 'lm_head').slice(from);
    const tensors = [batch.ids, batch.positions, batch.offsets, ...adapt(device, blockLinears)];
    model.hidden(batch).dispose(); // makes the rope table
    const before = live(device);
    const [plain, checkpointed] = [await pass(model, batch, 'none'), await pass(model, batch, 'blocks')];
    expect(checkpointed.gradients).toEqual(plain.gradients);
    expect(plain.gradients.every((gradient) => gradient.some((value) => value !== 0) && gradient.every(Number.isFinite))).toBe(true);
    const blocks = blockLinears.length / 4;
    // A block's input each, and what the last norm keeps: its input and a number or two a row.
    expect(checkpointed.saved).toBeLessThanOrEqual(((blocks + 1) * model.facts.hiddenSize + 2) * 21 * 4);
    expect(checkpointed.saved).toBeLessThan(plain.saved);
    expect(live(device)).toBe(before);
    for (const linear of blockLinears) linear.lora = null;
    for (const tensor of tensors) tensor.dispose();
    expect(live(device)).toBeLessThanOrEqual(loaded + 1);
    model.dispose();
    expect(live(device)).toBe(0);
  });
});

test('a model without adapters records nothing, checkpointed or not', async () => {
  using device = await openDevice('cpu');
  const model = await loadModel(goldenPath('families', 'llama_tied'), { device });
  using ids = device.tensor(Int32Array.of(1, 2, 3));
  using positions = device.tensor(Int32Array.of(0, 1, 2));
  using offsets = device.tensor(Int32Array.of(0, 3));
  for (const checkpointing of ['none', 'blocks'] as const) {
    using tape = new Tape();
    using hidden = tape.record(() => model.hidden({ ids, positions, offsets, length: 3 }, checkpointing));
    expect(tape.wants(hidden)).toBe(false);
    expect(tape.savedBytes).toBe(0);
  }
  model.dispose();
});
