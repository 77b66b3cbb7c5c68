import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { largeModel } from '../../bench/large-model.ts';
import { AdamW, attachLora, type Device, type GraphStats, loadModel, makeBatch, openDevice, trainStep } from '../../src/index.ts';
import { count, kind, why } from './tested-device.ts';

if (count === 0) console.warn(`CUDA graphs on ${kind}: not tested (${why.split(':')[0]})`);

const folder = mkdtempSync(path.join(tmpdir(), 'lowrank-graphs-'));
const shape = { family: 'llama', name: 'test', hidden: 32, layers: 2, heads: 2, kvHeads: 1, intermediate: 48, vocab: 61, positions: 64 } as const;
beforeAll(() => largeModel(folder, shape));
afterAll(() => rmSync(folder, { recursive: true }));

interface Run {
  readonly losses: readonly number[];
  readonly parameters: Float32Array;
  readonly graphs: GraphStats;
}

/** A step for each length, with a learning rate that falls. */
async function train(device: Device, lengths: readonly number[], dropout = 0): Promise<Run> {
  const model = await loadModel(folder, { device });
  const adapter = attachLora(model, { rank: 4, alpha: 8, targets: 'all-linear', seed: 1, dropout });
  const optimizer = new AdamW(adapter.parameters(), { lr: 0.01 });
  const losses: number[] = [];
  for (const [step, length] of lengths.entries()) {
    const inputIds = Int32Array.from({ length }, (_, i) => ((step + 3) * i + 1) % shape.vocab);
    optimizer.lr = 0.01 / (step + 1);
    losses.push((await trainStep(model, optimizer, makeBatch([{ inputIds, labels: inputIds }]))).loss);
  }
  return { losses, parameters: await adapter.parameters().parameters.data(), graphs: device.stats().graphs as GraphStats };
}

interface Options {
  readonly dropout?: number;
  readonly weightMemory?: number;
  readonly activations?: 'bf16' | 'f32';
}

/** The same steps with graphs and without. */
async function both(lengths: readonly number[], options: Options = {}): Promise<{ on: Run; off: Run }> {
  const { dropout, weightMemory = 0, activations = 'bf16' } = options;
  await using plain = await openDevice(kind, { activations, graphs: false, weightMemory });
  await using device = await openDevice(kind, { activations, weightMemory });
  return { off: await train(plain, lengths, dropout), on: await train(device, lengths, dropout) };
}

const numbersOf = ({ losses, parameters }: Run): object => ({ losses, parameters });

describe.skipIf(count === 0)('CUDA graphs', () => {
  it('steps of one shape are captured once and replayed, to the same bits; what changes in them (lr, labels) is updated', async () => {
    const { on, off } = await both([9, 9, 9, 9, 9]);
    expect(numbersOf(on)).toEqual(numbersOf(off));
    expect(off.graphs).toMatchObject({ replayed: 0, captured: 0 });
    expect(on.graphs.ops).toBe(off.graphs.ops);
    // The first step is launched op by op, the others as graphs.
    expect(on.graphs.replayed / on.graphs.ops).toBeGreaterThan(0.6);
    expect(on.graphs.captured).toBeGreaterThan(0);
    expect(on.graphs.captured).toBeLessThan(on.graphs.ops / 5 / 4);
    expect(on.graphs.updated).toBeGreaterThan(0);
    expect(on.graphs.refused).toBe(0);
  });

  it('a step of another length in between is launched op by op, also where it needs more scratch memory', async () => {
    const { on, off } = await both([9, 9, 9, 60, 9, 9]);
    expect(numbersOf(on)).toEqual(numbersOf(off));
    expect(on.graphs.replayed / on.graphs.ops).toBeGreaterThan(0.4);
  });

  it('steps that never repeat have no graphs', async () => {
    const { on, off } = await both([5, 6, 7, 8]);
    expect(numbersOf(on)).toEqual(numbersOf(off));
    expect(on.graphs.captured).toBeLessThan(4);
  });

  it.each(['bf16', 'f32'] as const)('steps with dropout are replayed too, in %s, each with masks of its own and to the same bits', async (activations) => {
    const { on, off } = await both([9, 9, 9, 9, 9], { dropout: 0.5, activations });
    expect(numbersOf(on)).toEqual(numbersOf(off));
    expect(new Set(on.losses).size).toBe(5);
    expect(on.graphs.replayed / on.graphs.ops).toBeGreaterThan(0.6);
  });

  it('where weights take turns each op waits for its own: nothing is gathered', async () => {
    const { on, off } = await both([9, 9, 9], { weightMemory: 60000 });
    expect(numbersOf(on)).toEqual(numbersOf(off));
    expect(on.graphs.replayed / on.graphs.ops).toBeLessThan(0.4);
  });

  it.skipIf(kind === 'cuda')('a driver that captures nothing is told, and the work is done op by op', async () => {
    process.env['LOWRANK_CUSIM_GRAPHS'] = 'off';
    const warning = once(process, 'warning') as Promise<Error[]>;
    try {
      const { on, off } = await both([9, 9, 9]);
      expect(numbersOf(on)).toEqual(numbersOf(off));
      expect(on.graphs).toMatchObject({ replayed: 0, why: 'cudaErrorNotSupported' });
      expect(on.graphs.refused).toBeGreaterThan(0);
      expect((await warning)[0]?.message).toMatch(/^cusim: .* can't be captured .*NotSupported.* launched one by one$/);
    } finally {
      delete process.env['LOWRANK_CUSIM_GRAPHS'];
    }
  });

  it('what a kernel finds in a replayed step is told, and its optimizer step changes nothing', async () => {
    await using device = await openDevice(kind, { activations: 'bf16' });
    const model = await loadModel(folder, { device });
    const adapter = attachLora(model, { rank: 4, alpha: 8, targets: 'all-linear', seed: 1 });
    const optimizer = new AdamW(adapter.parameters(), { lr: 0.01 });
    const step = (inputIds: Int32Array): Promise<unknown> => trainStep(model, optimizer, makeBatch([{ inputIds, labels: Int32Array.of(1, 2, 3, 4) }]));
    for (let i = 0; i < 3; i++) await step(Int32Array.of(1, 2, 3, 4));
    const before = await adapter.parameters().parameters.data();
    const { replayed } = device.stats().graphs as GraphStats;
    await expect(step(Int32Array.of(1, 2, 61, 4))).rejects.toMatchObject({ code: 'ERR_RANGE', message: expect.stringContaining('61 at row 2') as string });
    expect((device.stats().graphs as GraphStats).replayed).toBeGreaterThan(replayed);
    expect(await adapter.parameters().parameters.data()).toEqual(before);
  });
});
