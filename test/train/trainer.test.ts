import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { loadAdapter } from '../../src/lora/load.ts';
import { setAdapter } from '../../src/lora/model-adapters.ts';
import { schedule } from '../../src/optim/schedule.ts';
import type { TrainEvent } from '../../src/train/run-events.ts';
import { evaluate } from '../../src/train/evaluate.ts';
import { inFileOrder } from '../../src/train/run.ts';
import { Trainer } from '../../src/train/trainer.ts';
import type { TrainerOptions } from '../../src/train/trainer-options.ts';
import { onCpu } from '../on-cpu.ts';
import { datasetOf, eventsOf, stepsOf, waveDataset, withWorkplace } from './training.ts';

const cpu = onCpu();
const dataset = waveDataset(11);

let out: string;
beforeEach(() => void (out = mkdtempSync(path.join(tmpdir(), 'lowrank-trainer-'))));
afterEach(() => rmSync(out, { recursive: true }));

/** Events of a run over the wave data. */
async function run(options: Partial<TrainerOptions> = {}): Promise<TrainEvent[]> {
  return withWorkplace(cpu.device, {}, (workplace) => eventsOf(new Trainer({ ...workplace, dataset, batchSize: 2, ...options })));
}

const types = (events: readonly TrainEvent[]): string[] => events.map(({ type }) => type);

describe('a run', () => {
  test('starts, makes every window of every epoch one step, and ends', async () => {
    const events = await run({ epochs: 2, accumulate: 2 });
    // 11 rows, 2 a batch, 2 batches a step: 3 steps an epoch, the last one smaller.
    expect(types(events)).toEqual(['start', ...Array<string>(6).fill('step'), 'end']);
    expect(stepsOf(events).map(({ step }) => step)).toEqual([1, 2, 3, 4, 5, 6]);
    expect(stepsOf(events).map(({ epoch }) => epoch)).toEqual([0.3333, 0.6667, 1, 1.3333, 1.6667, 2]);
    expect(events.at(-1)).toMatchObject({ type: 'end', step: 6, steps: 6, reason: 'complete', skipped: 0, checkpoint: null });
    expect(stepsOf(events).every(({ tokensPerSecond, memory }) => tokensPerSecond > 0 && memory > 0)).toBe(true);
  });

  test('learns', async () => {
    const losses = stepsOf(await run({ epochs: 12 })).map(({ loss }) => loss);
    expect(losses.at(-1)!).toBeLessThan(0.8 * losses[0]!);
  });

  test('tells what JSON can hold', async () => {
    for (const event of await run({ steps: 2, evalDataset: dataset, out })) expect(JSON.parse(JSON.stringify(event))).toEqual(event);
  });

  test('half an epoch is half of its steps', async () => {
    expect(stepsOf(await run({ epochs: 1.5 }))).toHaveLength(9);
  });

  test.each(['constant', 'linear', 'cosine'] as const)('follows the %s schedule, once per optimizer step', async (kind) => {
    const rates = stepsOf(await run({ steps: 7, accumulate: 2, schedule: kind, warmup: 2 })).map(({ lr }) => lr);
    const rate = schedule(kind, { lr: 0.01, warmup: 2, steps: 7 });
    expect(rates).toEqual(Array.from({ length: 7 }, (_, i) => rate(i)));
  });

  test('leaves the optimizer with the rate it came with', async () => {
    await withWorkplace(cpu.device, {}, async (workplace) => {
      await new Trainer({ ...workplace, dataset, steps: 3, schedule: 'linear' });
      expect(workplace.optimizer.lr).toBe(0.01);
    });
  });

  test('of the same seed makes the same losses, of another seed others', async () => {
    const losses = async (seed: number): Promise<number[]> => stepsOf(await run({ steps: 4, seed })).map(({ loss }) => loss);
    expect(await losses(5)).toEqual(await losses(5));
    expect(await losses(6)).not.toEqual(await losses(5));
  });

  test('in packed rows reads the same tokens', async () => {
    const tokens = async (packing: 'none' | 'first-fit'): Promise<number> => stepsOf(await run({ epochs: 1, packing, seqLength: 20 })).reduce((sum, step) => sum + step.tokens, 0);
    expect(await tokens('first-fit')).toBe(await tokens('none'));
  });

  test('with checkpointing makes the same losses', async () => {
    const losses = async (checkpointing: 'none' | 'blocks'): Promise<number[]> => stepsOf(await run({ steps: 4, checkpointing })).map(({ loss }) => loss);
    expect(await losses('blocks')).toEqual(await losses('none'));
  });
});

describe('awaiting and reading', () => {
  test('await gives the end, also without a loop', async () => {
    await withWorkplace(cpu.device, {}, async (workplace) => {
      expect(await new Trainer({ ...workplace, dataset, steps: 2 })).toMatchObject({ type: 'end', step: 2 });
    });
  });

  test('two slow loops and an await get all events of one run', async () => {
    await withWorkplace(cpu.device, {}, async (workplace) => {
      const trainer = new Trainer({ ...workplace, dataset, steps: 5 });
      const slowly = async (pause: number): Promise<string[]> => {
        const seen: string[] = [];
        for await (const event of trainer) {
          seen.push(event.type);
          await sleep(pause);
        }
        return seen;
      };
      const [one, two, end] = await Promise.all([slowly(3), slowly(12), trainer.result]);
      expect(one).toEqual(['start', 'step', 'step', 'step', 'step', 'step', 'end']);
      expect(two).toEqual(one);
      expect(end.step).toBe(5);
    });
  });

  test('a loop that is left stops the run after its step, with a checkpoint, before the next statement', async () => {
    await withWorkplace(cpu.device, {}, async (workplace) => {
      const trainer = new Trainer({ ...workplace, dataset, steps: 500, out });
      for await (const event of trainer) if (event.type === 'step' && event.step === 3) break;
      const end = await trainer.result;
      expect(end.reason).toBe('stopped');
      expect(end.step).toBeLessThan(500);
      expect(readdirSync(out)).toContain(`checkpoint-${end.step}`);
    });
  });

  test('a loop that is left lets the run go on for somebody who awaits it', async () => {
    await withWorkplace(cpu.device, {}, async (workplace) => {
      const trainer = new Trainer({ ...workplace, dataset, steps: 6 });
      const { result } = trainer;
      for await (const event of trainer) if (event.type === 'step') break;
      expect(await result).toMatchObject({ step: 6, reason: 'complete' });
    });
  });

  test('an adapter is trained by one run at a time', async () => {
    await withWorkplace(cpu.device, {}, async (workplace) => {
      const first = new Trainer({ ...workplace, dataset, steps: 3 }).result;
      await expect(new Trainer({ ...workplace, dataset, steps: 3 }).result).rejects.toMatchObject({ code: 'ERR_ARGUMENT' });
      expect((await first).reason).toBe('complete');
    });
  });

  test('an error reaches the loop and the await', async () => {
    await withWorkplace(cpu.device, {}, async (workplace) => {
      const foreign = datasetOf([{ inputIds: Int32Array.of(1, 5000, 2), labels: Int32Array.of(1, 2, 2) }]);
      const trainer = new Trainer({ ...workplace, dataset: foreign, steps: 3 });
      await expect(eventsOf(trainer)).rejects.toMatchObject({ code: 'ERR_RANGE' });
      await expect(trainer.result).rejects.toMatchObject({ code: 'ERR_RANGE' });
    });
  });

  test('the signal ends the run after the step, and the adapter is saved', async () => {
    await withWorkplace(cpu.device, {}, async (workplace) => {
      const controller = new AbortController();
      const trainer = new Trainer({ ...workplace, dataset, steps: 1000, out, signal: controller.signal });
      void sleep(40).then(() => controller.abort());
      const end = await trainer;
      expect(end).toMatchObject({ reason: 'stopped', checkpoint: path.join(out, `checkpoint-${end.step}`) });
      expect(readdirSync(out)).toContain('adapter_model.safetensors');
    });
  });

  test('a signal that came before the start makes no step', async () => {
    await withWorkplace(cpu.device, {}, async (workplace) => {
      expect(await new Trainer({ ...workplace, dataset, steps: 3, signal: AbortSignal.abort() })).toMatchObject({ step: 0, reason: 'stopped', loss: null });
    });
  });
});

describe('held-out data', () => {
  test('is measured before, every so many steps, and at the end, without dropout', async () => {
    await withWorkplace(cpu.device, { dropout: 0.5 }, async (workplace) => {
      const events = await eventsOf(new Trainer({ ...workplace, dataset, steps: 5, evalDataset: dataset, evalEvery: 2 }));
      const evals = events.filter((event) => event.type === 'eval');
      expect(evals.map(({ step }) => step)).toEqual([0, 2, 4, 5]);
      expect(evals.at(-1)!.loss).toBe((await evaluate(workplace.model, inFileOrder(dataset, 4))).loss);
      expect(evals[0]!.perplexity).toBeCloseTo(Math.exp(evals[0]!.loss), 10);
    });
  });

  test('changes nothing of the run', async () => {
    const losses = async (options: Partial<TrainerOptions>): Promise<number[]> => stepsOf(await run({ steps: 4, ...options })).map(({ loss }) => loss);
    expect(await losses({ evalDataset: waveDataset(3), evalEvery: 1 })).toEqual(await losses({}));
  });
});

describe('steps that change nothing', () => {
  test('a window without a token to learn is told and counts as a step', async () => {
    const empty = { inputIds: Int32Array.of(5, 6, 7), labels: Int32Array.of(-100, -100, -100) };
    const events = await run({ dataset: datasetOf([dataset.get(0), empty]), batchSize: 1, shuffle: false, epochs: 1 });
    expect(types(events)).toEqual(['start', 'step', 'step', 'skip', 'end']);
    expect(events[3]).toMatchObject({ reason: 'empty', step: 2 });
  });

  test('a loss that is not finite leaves parameters and moments as they were, and the fifth in a row ends the run', async () => {
    await withWorkplace(cpu.device, {}, async ({ model, adapter, optimizer }) => {
      await new Trainer({ model, adapter, optimizer, dataset, steps: 2 });
      const broken = adapter.parameters().parameters;
      const values = await broken.data();
      values[3] = NaN;
      broken.upload(values);
      const state = async (): Promise<Buffer> => Buffer.concat(await Promise.all([broken, ...Object.values(optimizer.stateTensors())].map(async (t) => Buffer.from(await t.bytes()))));
      const before = await state();
      const events: TrainEvent[] = [];
      const trainer = new Trainer({ model, adapter, optimizer, dataset, steps: 50, out });
      const reading = (async () => {
        for await (const event of trainer) events.push(event);
      })();
      await expect(reading).rejects.toThrow(/steps 1 to 5 were not/);
      await expect(trainer.result).rejects.toMatchObject({ code: 'ERR_NONFINITE' });
      expect(await state()).toEqual(before);
      expect(optimizer.steps).toBe(2);
      expect(types(events)).toEqual(['start', ...Array.from({ length: 5 }, () => ['step', 'skip']).flat(), 'save']);
    });
  });
});

describe('options', () => {
  test('all that is wrong is told at once', async () => {
    await withWorkplace(cpu.device, {}, async (workplace) => {
      const wrong: TrainerOptions = { ...workplace, dataset, steps: 0, epochs: -1, batchSize: 1.5, clip: NaN, evalEvery: 3, saveEvery: 2, resume: true };
      let message = '';
      try {
        new Trainer(wrong);
      } catch (error) {
        message = (error as Error).message;
      }
      for (const word of ['steps must', 'epochs must', 'batchSize must', 'not both', 'clip must', 'evalEvery must', 'saveEvery must', 'resume must']) expect(message).toContain(word);
    });
  });

  test("an optimizer of another adapter's parameters is refused", async () => {
    await withWorkplace(cpu.device, {}, async ({ model, adapter, optimizer }) => {
      await new Trainer({ model, adapter, optimizer, dataset, steps: 1, out });
      const other = await loadAdapter(model, out, { name: 'other' });
      expect(() => new Trainer({ model, adapter: other, optimizer, dataset })).toThrow(/optimizer must be made over/);
      setAdapter(model, 'default');
      other.dispose();
    });
  });
});
