import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { AttachConfig } from '../../src/lora/attach.ts';
import { loadAdapter } from '../../src/lora/load.ts';
import type { AdamWOptions } from '../../src/optim/adamw.ts';
import { Sgd } from '../../src/optim/sgd.ts';
import { findCheckpoints } from '../../src/train/checkpoint.ts';
import type { TrainEvent } from '../../src/train/run-events.ts';
import { Trainer } from '../../src/train/trainer.ts';
import type { TrainerOptions } from '../../src/train/trainer-options.ts';
import { onCpu } from '../on-cpu.ts';
import { datasetOf, eventsOf, stepsOf, waveDataset, withWorkplace } from './training.ts';

const cpu = onCpu();
const dataset = waveDataset(13);

let out: string;
beforeEach(() => void (out = path.join(mkdtempSync(path.join(tmpdir(), 'lowrank-checkpoint-')), 'run')));
afterEach(() => rmSync(path.dirname(out), { recursive: true }));

/** Everything at once that the next step depends on. */
const hard: Partial<TrainerOptions> = { batchSize: 2, accumulate: 2, shuffle: true, seed: 11, clip: 1, schedule: 'cosine', warmup: 2, steps: 14 };
const settings: AttachConfig & { optimizer: Partial<AdamWOptions> } = { dropout: 0.1, optimizer: { loraPlusRatio: 4 } };

interface Made {
  readonly events: readonly TrainEvent[];
  readonly parameters: Buffer;
}

/** One process's part of a run: everything new but what is in `out`. It is stopped after step `until`. */
async function part(options: Partial<TrainerOptions>, until = Infinity, config = settings): Promise<Made> {
  return withWorkplace(cpu.device, config, async (workplace) => {
    const controller = new AbortController();
    const trainer = new Trainer({ ...workplace, dataset, ...hard, saveEvery: options.out === undefined ? 0 : 3, signal: controller.signal, ...options });
    const events: TrainEvent[] = [];
    for await (const event of trainer) {
      events.push(event);
      if (event.type === 'step' && event.step >= until) controller.abort();
    }
    return { events, parameters: Buffer.from(await workplace.adapter.parameters().parameters.bytes()) };
  });
}

const numbers = (events: readonly TrainEvent[]): object[] => stepsOf(events).map(({ step, loss, gradNorm, lr, tokens, epoch }) => ({ step, loss, gradNorm, lr, tokens, epoch }));

describe('a resumed run', () => {
  test.each([1, 2, 3, 4, 7, 13])('stopped after step %i makes the very losses of the unbroken one', async (until) => {
    const whole = await part({});
    const first = await part({ out }, until);
    const second = await part({ out, resume: true });
    expect(stepsOf(first.events)).toHaveLength(until);
    expect([...numbers(first.events), ...numbers(second.events)]).toEqual(numbers(whole.events));
    expect(second.parameters.equals(whole.parameters)).toBe(true);
  });

  test('in many parts too, with packing', async () => {
    const packed = { packing: 'first-fit', seqLength: 24, steps: 9, schedule: 'linear' } as const;
    const whole = await part(packed);
    const parts = [await part({ ...packed, out }, 2)];
    for (const until of [3, 5, 8, Infinity]) parts.push(await part({ ...packed, out, resume: true }, until));
    expect(parts.flatMap(({ events }) => numbers(events))).toEqual(numbers(whole.events));
  });

  test.each([0, 0.9])('with SGD, momentum %f', async (momentum) => {
    const sgd = async (options: Partial<TrainerOptions>, until: number): Promise<object[]> =>
      withWorkplace(cpu.device, settings, async ({ model, adapter }) => {
        using optimizer = new Sgd(adapter.parameters(), { lr: 0.1, momentum });
        const controller = new AbortController();
        const events: TrainEvent[] = [];
        for await (const event of new Trainer({ model, adapter, optimizer, dataset, steps: 6, signal: controller.signal, ...options })) {
          events.push(event);
          if (event.type === 'step' && event.step >= until) controller.abort();
        }
        return numbers(events);
      });
    const whole = await sgd({}, Infinity);
    expect([...(await sgd({ out }, 2)), ...(await sgd({ out, resume: true }, Infinity))]).toEqual(whole);
  });

  test('goes on from the last checkpoint when it was killed behind it', async () => {
    const whole = await part({});
    await part({ out }, 7);
    rmSync(path.join(out, 'checkpoint-7'), { recursive: true }); // as if the kill had come before it
    const { events } = await part({ out, resume: true });
    expect(events[0]).toMatchObject({ type: 'start', step: 6, resumedFrom: path.join(out, 'checkpoint-6') });
    expect(numbers(events)).toEqual(numbers(whole.events).slice(6));
  });

  test('can be turned back to an older checkpoint, whose future is then removed', async () => {
    const whole = await part({ out, keep: 9 });
    const { events } = await part({ out, keep: 9, resume: path.join(out, 'checkpoint-6') }, 8);
    expect(numbers(events)).toEqual(numbers(whole.events).slice(6, 8));
    expect((await findCheckpoints(out)).map(({ step }) => step)).toEqual([8, 6, 3]);
  });

  test('that was complete says so and changes nothing', async () => {
    const whole = await part({ out });
    const { events, parameters } = await part({ out, resume: true });
    expect(events.map(({ type }) => type)).toEqual(['start', 'end']);
    expect(events[1]).toMatchObject({ reason: 'already-complete', step: 14, checkpoint: path.join(out, 'checkpoint-14') });
    expect(parameters.equals(whole.parameters)).toBe(true);
  });

  test('of constant rate can be made longer', async () => {
    const constant = { schedule: 'constant' } as const;
    const whole = await part(constant);
    await part({ ...constant, steps: 5, out });
    expect(numbers((await part({ ...constant, out, resume: true })).events)).toEqual(numbers(whole.events).slice(5));
  });

  test('without a checkpoint starts at the first step, and says so', async () => {
    const { events } = await part({ out, resume: true }, 1);
    expect(events[0]).toMatchObject({ step: 0, resumedFrom: null, notes: [expect.stringContaining('no checkpoint')] });
  });

  test('of other settings is refused with every difference', async () => {
    await part({ out }, 2);
    const other = withWorkplace(cpu.device, { dropout: 0.2, rank: 5 }, (workplace) => eventsOf(new Trainer({ ...workplace, dataset: waveDataset(12), ...hard, batchSize: 3, seed: 12, out, resume: true })));
    const message = await other.then(() => '', (error: Error) => error.message);
    for (const word of ['adapter.rank was 4 and is 5', 'adapter.dropout was 0.1 and is 0.2', 'data was 13 samples', 'loraPlusRatio was 4 and is 1', 'batchSize was 2 and is 3', 'seed was 11 and is 12']) expect(message).toContain(word);
    for (const word of ['warmup', 'alpha']) expect(message).not.toContain(word);
  });

  test('sees that a label changed', async () => {
    await part({ out }, 2);
    const changed = datasetOf(Array.from({ length: 13 }, (_, i) => {
      const sample = dataset.get(i);
      return i === 4 ? { ...sample, labels: sample.labels.map((label, t) => (t === 4 ? -100 : label)) } : sample;
    }));
    await expect(part({ out, resume: true, dataset: changed })).rejects.toThrow(/data was/);
  });
});

describe('checkpoints', () => {
  test('the newest two stay, each a whole PEFT folder', async () => {
    await part({ out });
    expect((await findCheckpoints(out)).map(({ step, steps }) => [step, steps])).toEqual([[14, 14], [12, 14]]);
    expect(readdirSync(out).filter((name) => name.includes('checkpoint')).sort()).toEqual(['checkpoint-12', 'checkpoint-14']);
    await withWorkplace(cpu.device, {}, async ({ model }) => {
      using adapter = await loadAdapter(model, path.join(out, 'checkpoint-12'), { name: 'other' });
      expect(adapter.modules.length).toBeGreaterThan(0);
    });
  });

  test("the adapter in the run's folder is that of its last checkpoint", async () => {
    await part({ out });
    const [top, last] = [out, path.join(out, 'checkpoint-14')].map((folder) => readFileSync(path.join(folder, 'adapter_model.safetensors')));
    expect(top!.equals(last!)).toBe(true);
  });

  const damages: [string, (folder: string) => void][] = [
    ['its state is missing', (folder) => rmSync(path.join(folder, 'state.json'))],
    ['its state is cut short', (folder) => truncateSync(path.join(folder, 'state.json'), 100)],
    ['its state is of something else', (folder) => writeFileSync(path.join(folder, 'state.json'), '{"step": 14}')],
    ['its step is no number', (folder) => writeFileSync(path.join(folder, 'state.json'), readFileSync(path.join(folder, 'state.json'), 'utf8').replace('"step": 14', '"step": "x"'))],
    ['its moments are missing', (folder) => rmSync(path.join(folder, 'optimizer.safetensors'))],
    ['its moments are cut short', (folder) => truncateSync(path.join(folder, 'optimizer.safetensors'), 500)],
    ['its adapter is cut short', (folder) => truncateSync(path.join(folder, 'adapter_model.safetensors'), 1000)],
  ];
  test.each(damages)('one is passed over when %s', async (_, damage) => {
    await part({ out });
    damage(path.join(out, 'checkpoint-14'));
    expect((await findCheckpoints(out)).map(({ step }) => step)).toEqual([12]);
    expect((await part({ out, resume: true })).events[0]).toMatchObject({ step: 12 });
  });

  test('one that was being replaced when the process was killed is put back', async () => {
    await part({ out });
    const hidden = path.join(out, '.checkpoint-14.old-elsewhere-1-0000abcd');
    cpSync(path.join(out, 'checkpoint-14'), hidden, { recursive: true });
    rmSync(path.join(out, 'checkpoint-14'), { recursive: true });
    expect((await findCheckpoints(out)).map(({ step }) => step)).toEqual([14, 12]);
    expect(existsSync(hidden)).toBe(false);
  });

  test('a damaged one that is named is refused, and the adapter is untouched', async () => {
    await part({ out });
    truncateSync(path.join(out, 'checkpoint-14', 'optimizer.safetensors'), 500);
    await expect(part({ out, resume: path.join(out, 'checkpoint-14') })).rejects.toMatchObject({ code: 'ERR_FORMAT' });
    await expect(part({ out, resume: path.join(out, 'checkpoint-99') })).rejects.toMatchObject({ code: 'ERR_FILE' });
  });

  test('a folder with an unfinished run is not started over, one with a finished run is', async () => {
    await part({ out }, 4);
    await expect(part({ out })).rejects.toThrow(/unfinished run \(found checkpoint-4 of 14 steps\)/);
    await part({ out, resume: true });
    await part({ out, steps: 2 });
    expect((await findCheckpoints(out)).map(({ step }) => step)).toEqual([2]);
  });
});
