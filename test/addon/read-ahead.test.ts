import { mkdtempSync, readFileSync, rmSync, statSync, truncateSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { largeModel } from '../../bench/large-model.ts';
import { AdamW, attachLora, loadModel, makeBatch, openDevice, trainStep, type Device, type Model } from '../../src/index.ts';
import { openShards } from '../../src/io/shards.ts';

// Shards of about two layers; matrices of 2 to 8 pages that begin and end anywhere in one.
const shape = { family: 'llama', name: 'test', hidden: 72, layers: 5, heads: 4, kvHeads: 2, intermediate: 200, vocab: 130, positions: 64, tied: false } as const;
const folder = mkdtempSync(path.join(tmpdir(), 'lowrank-read-ahead-'));
let weightBytes = 0;

beforeAll(async () => {
  await largeModel(folder, shape, 250_000);
  weightBytes = [...(await openShards(folder)).tensors].filter(([name]) => isMatrix(name)).reduce((sum, [, { begin, end }]) => sum + end - begin, 0);
});
afterAll(() => rmSync(folder, { recursive: true }));

const isMatrix = (name: string): boolean => /proj|lm_head/.test(name);

interface Event {
  readonly name: string;
  readonly args: { readonly shapes: string };
}

/** What the trace tells of `body` on a device of its own, read-ahead set to `setting`. */
async function traced(setting: string, body: (device: Device) => Promise<void>): Promise<Event[]> {
  const trace = path.join(folder, 'trace.json');
  const before = { LOWRANK_READ_AHEAD: process.env['LOWRANK_READ_AHEAD'], LOWRANK_TRACE: process.env['LOWRANK_TRACE'] };
  Object.assign(process.env, { LOWRANK_READ_AHEAD: setting, LOWRANK_TRACE: trace });
  opened += 1;
  try {
    const device = await openDevice('cpu');
    try {
      await body(device);
    } finally {
      device.close();
    }
  } finally {
    for (const [name, value] of Object.entries(before)) {
      if (value === undefined) delete process.env[name];
      else process.env[name] = value;
    }
  }
  const file = opened === 1 ? trace : `${trace}.${opened}`;
  return (JSON.parse(readFileSync(file, 'utf8')) as Partial<Event>[]).filter((event): event is Event => event.name !== undefined);
}
let opened = 0;

interface Step {
  readonly loss: number;
  readonly gradNorm: number;
}

/** Two training steps, checkpointed. */
async function train(device: Device, between: (model: Model) => Promise<void> = async () => undefined): Promise<Step[]> {
  const model = await loadModel(folder, { device });
  const adapter = attachLora(model, { rank: 4, alpha: 8, targets: 'all-linear', seed: 1 });
  const optimizer = new AdamW(adapter.parameters(), { lr: 0.01 });
  const inputIds = Int32Array.from({ length: 21 }, (_, i) => (17 * i) % shape.vocab);
  const batch = makeBatch([{ inputIds, labels: inputIds }]);
  const steps: Step[] = [];
  for (let i = 0; i < 2; i++) {
    const { loss, gradNorm } = await trainStep(model, optimizer, batch, { checkpointing: 'blocks' });
    steps.push({ loss, gradNorm });
    await between(model);
  }
  return steps;
}

/** Names of the weights of such events, in order, with their bytes. */
async function weightsOf(events: readonly Event[]): Promise<{ what: string; weight: string; bytes: number }[]> {
  const { tensors } = await openShards(folder);
  const names = new Map([...tensors].map(([name, { file, begin, end }]) => [`${begin}+${end - begin} of ${path.basename(file)}`, name]));
  return events.filter(({ name }) => name === 'read_ahead' || name === 'let_go').map(({ name, args }) => {
    const weight = names.get(args.shapes);
    if (weight === undefined) throw new Error(`no weight lies at ${args.shapes}`);
    return { what: name, weight: weight.replace('.weight', ''), bytes: Number(/\+(\d+)/.exec(args.shapes)?.[1]) };
  });
}

it('weights are read once each, in the order in which the layers use them, where all fit', async () => {
  let order: string[] = [];
  const events = await traced('1000000000', async (device) => {
    await train(device, async (model) => void (order = model.linears.flatMap(({ parts }) => parts.map(({ name }) => name))));
  });
  const read = await weightsOf(events);
  expect(read.filter(({ what }) => what === 'let_go')).toEqual([]);
  expect(read.map(({ weight }) => weight)).toEqual(order);
  expect(order).toHaveLength(5 * 7 + 1);
});

it('with room for half of the weights no more is held, and what was used last is kept at each turn', async () => {
  const budget = Math.floor(weightBytes / 2);
  const turns: number[] = [];
  const events = await traced(String(budget), async (device) => void (await train(device)));
  let held = 0;
  const here = new Set<string>();
  let missed = 0;
  for (const { what, weight, bytes } of await weightsOf(events)) {
    const was = here.has(weight);
    if (what === 'let_go') here.delete(weight);
    else here.add(weight);
    if (what === 'let_go') held -= bytes;
    else if (!was) [held, missed] = [held + bytes, missed + bytes];
    expect(held).toBeLessThanOrEqual(budget);
    turns.push(held);
  }
  expect(Math.max(...turns)).toBeGreaterThan(0.7 * budget);
  // Two steps go up and down twice. Without a plan each of the four passes would read everything; with one, the first does, and each
  // other one half of it and what the grain of whole matrices costs.
  expect(missed).toBeLessThan(3 * weightBytes);
  expect(missed).toBeGreaterThan(2 * weightBytes);
});

it('results are the same bits whatever is read ahead', async () => {
  const results: Step[][] = [];
  for (const setting of ['', 'off', '1000000000', String(Math.floor(weightBytes / 2)), '40000', '1']) {
    await traced(setting, async (device) => void results.push(await train(device)));
  }
  for (const result of results) expect(result).toEqual(results[0]);
});

it('a small model is left to the system', async () => {
  for (const setting of ['', 'off']) {
    const events = await traced(setting, async (device) => void (await train(device)));
    expect(events.filter(({ name }) => ['read_ahead', 'let_go', 'wait_for_weights'].includes(name))).toEqual([]);
  }
});

it('work that was skipped behind a failure holds nothing up', async () => {
  await traced('60000', async (device) => {
    const model = await loadModel(folder, { device });
    const run = (id: number): Promise<unknown> => {
      using ids = device.tensor(Int32Array.of(1, id, 2));
      using positions = device.tensor(Int32Array.of(0, 1, 2));
      using offsets = device.tensor(Int32Array.of(0, 3));
      using hidden = model.hidden({ ids, positions, offsets, length: 3 });
      return hidden.data();
    };
    const first = await run(5);
    await expect(run(9999)).rejects.toMatchObject({ code: 'ERR_RANGE' });
    expect(await run(5)).toEqual(first);
  });
});

it('closing the device in mid-step waits for no weight', async () => {
  await traced('60000', async (device) => {
    const model = await loadModel(folder, { device });
    using ids = device.tensor(Int32Array.of(1, 2, 3));
    using positions = device.tensor(Int32Array.of(0, 1, 2));
    using offsets = device.tensor(Int32Array.of(0, 3));
    for (let i = 0; i < 20; i++) model.hidden({ ids, positions, offsets, length: 3 });
    device.close();
  });
});

it.each(['', '60000'])('a weight file that was made shorter is an error that names it, not the end of the process (read-ahead: "%s")', async (setting) => {
  const copy = mkdtempSync(path.join(tmpdir(), 'lowrank-shorter-'));
  try {
    await largeModel(copy, shape, 250_000);
    await traced(setting, async (device) => {
      const model = await loadModel(copy, { device });
      const last = (await openShards(copy)).files.at(-1) as string;
      using ids = device.tensor(Int32Array.of(1, 2, 3));
      using positions = device.tensor(Int32Array.of(0, 1, 2));
      using offsets = device.tensor(Int32Array.of(0, 3));
      const run = (): Promise<unknown> => {
        using logits = model.logits(model.hidden({ ids, positions, offsets, length: 3 }));
        return logits.data();
      };
      await run();
      const bytes = statSync(last).size;
      truncateSync(last, 4096);
      await expect(run()).rejects.toMatchObject({ code: 'ERR_FILE', message: expect.stringContaining(`${last}: must keep its length while it is mapped (it had ${bytes} bytes`) });
      model.dispose();
    });
  } finally {
    rmSync(copy, { recursive: true });
  }
});
