import { describe, expect, test, vi } from 'vitest';
import { makeBatch, type Batch } from '../../src/data/batch.ts';
import { attachLora, type AttachConfig } from '../../src/lora/attach.ts';
import type { Adapter } from '../../src/lora/adapter.ts';
import { adaptersOf, setAdapter } from '../../src/lora/model-adapters.ts';
import type { Model } from '../../src/models/model.ts';
import { addon } from '../../src/native.ts';
import { AdamW } from '../../src/optim/adamw.ts';
import { evaluate } from '../../src/train/evaluate.ts';
import { trainStep } from '../../src/train/step.ts';
import { onCpu } from '../on-cpu.ts';
import { normals, worst } from '../reference/finite-difference.ts';
import { smallModel, V, type SmallModelOptions } from '../lora/small-model.ts';

const cpu = onCpu();

interface Setup {
  readonly model: Model;
  readonly adapter: Adapter;
  readonly optimizer: AdamW;
}

async function withSetup(config: AttachConfig & SmallModelOptions, body: (setup: Setup) => Promise<unknown>): Promise<void> {
  const { tied = true, ...settings } = config;
  const model = smallModel(cpu.device, { tied });
  const adapter = attachLora(model, { rank: 2, alpha: 3, targets: 'all-linear', ...settings });
  adapter.parameters().parameters.upload(Float32Array.from(normals(adapter.parameters().size, 1), (x) => 0.3 * x));
  const optimizer = new AdamW(adapter.parameters(), { lr: 0.01, weightDecay: 0.1 });
  await body({ model, adapter, optimizer });
  optimizer.dispose();
  for (const each of adaptersOf(model)) each.dispose();
  model.dispose();
}

/** Sequences of different lengths; the first `prompt` labels of each take no part. */
const samples = [3, 6, 2, 5].map((length, s) => {
  const inputIds = Int32Array.from({ length }, (_, t) => (3 * s + 2 * t + 1) % V);
  return { inputIds, labels: inputIds.map((id, t) => (t <= s % 2 ? -100 : id)) };
});
const whole = makeBatch(samples);
const ignored = (batch: Batch): Batch => ({ ...batch, targets: batch.targets.map(() => -100), tokens: 0 });

const parametersOf = ({ adapter }: Setup): Promise<Float32Array> => adapter.parameters().parameters.data();
const gradientsOf = ({ adapter }: Setup): Promise<Float32Array> => adapter.parameters().gradients.data();
async function stateOf({ optimizer, adapter }: Setup): Promise<Buffer> {
  const tensors = [adapter.parameters().parameters, ...Object.values(optimizer.stateTensors())];
  return Buffer.concat(await Promise.all(tensors.map(async (tensor) => Buffer.from(await tensor.bytes()))));
}

describe('trainStep: what is computed', () => {
  test('micro-batches of one sequence and of all agree', async () => {
    const results: { loss: number; tokens: number; gradNorm: number; parameters: Float32Array }[] = [];
    for (const window of [whole, samples.map((sample) => makeBatch([sample])), [makeBatch(samples.slice(0, 3)), makeBatch(samples.slice(3))]]) {
      await withSetup({}, async (setup) => {
        const { loss, tokens, gradNorm } = await trainStep(setup.model, setup.optimizer, window, { clip: 0.5 });
        results.push({ loss, tokens, gradNorm, parameters: await parametersOf(setup) });
      });
    }
    const [first, ...others] = results as [(typeof results)[0], ...typeof results];
    for (const other of others) {
      expect(other.tokens).toBe(first.tokens);
      expect(Math.abs(other.loss - first.loss)).toBeLessThan(1e-6);
      expect(Math.abs(other.gradNorm - first.gradNorm)).toBeLessThan(1e-5);
      expect(worst(other.parameters, first.parameters)).toBeLessThan(2e-5);
    }
  });

  test.each([
    ['a tied head', { tied: true }],
    ['an adapter on the head, through the logits', { tied: false, targets: ['q_proj', 'k_proj', 'v_proj', 'lm_head'] }],
    ['two parts of three', { targets: ['q_proj', 'v_proj'] }],
  ] as const)('the whole gradient with dropout agrees with differences: %s', (_, config) => withSetup({ ...config, targets: 'targets' in config ? [...config.targets] : 'all-linear', dropout: 0.3, seed: 7 }, async (setup) => {
    const { model, adapter, optimizer } = setup;
    const loss = async (): Promise<number> => (await trainStep(model, optimizer, whole, { lr: 0, dropoutStep: 5 })).loss;
    const values = await parametersOf(setup);
    const set = (i: number, by: number): void => adapter.parameters().parameters.upload(values.map((x, j) => (i === j ? x + by : x)));
    await loss();
    const gradients = await gradientsOf(setup);
    const h = 1e-2;
    for (let i = 0; i < values.length; i += 5) {
      const at = async (by: number): Promise<number> => (set(i, by), loss());
      const slope = ((await at(h)) - (await at(-h))) / (2 * h);
      expect(Math.abs(slope - gradients[i]!), `element ${i}`).toBeLessThan(2e-3 * (1 + Math.abs(slope)));
    }
    expect(gradients.filter((g) => g === 0).length).toBeLessThan(gradients.length / 10);
    set(-1, 0);
  }));

  test('masks follow the dropout step, which goes on by one with each micro-batch', () => withSetup({ dropout: 0.5 }, async ({ model, adapter, optimizer }) => {
    const loss = async (dropoutStep?: number): Promise<number> => (await trainStep(model, optimizer, [whole, ignored(whole)], { lr: 0, ...(dropoutStep === undefined ? {} : { dropoutStep }) })).loss;
    const first = await loss();
    expect(adapter.dropoutStep).toBe(2);
    const second = await loss();
    expect(second).not.toBe(first);
    expect([await loss(0), await loss(2)]).toEqual([first, second]);
    await loss(2 ** 32 - 1);
    expect(adapter.dropoutStep).toBe(1);
    expect(adapter.mode).toBe('eval');
  }));

  test('checkpointing gives the same bits, dropout included, and holds fewer bytes', async () => {
    const seen: { bits: Buffer; savedBytes: number }[] = [];
    for (const checkpointing of ['none', 'blocks'] as const) {
      await withSetup({ dropout: 0.2 }, async (setup) => {
        const { savedBytes } = await trainStep(setup.model, setup.optimizer, whole, { checkpointing });
        seen.push({ bits: await stateOf(setup), savedBytes });
      });
    }
    expect(Buffer.compare(seen[0]!.bits, seen[1]!.bits)).toBe(0);
    expect(seen[1]!.savedBytes).toBeLessThan(seen[0]!.savedBytes / 2);
  });

  test('the host waits once', () => withSetup({}, async ({ model, optimizer }) => {
    const native = addon();
    const waits = [vi.spyOn(native, 'download'), vi.spyOn(native, 'fence')];
    await trainStep(model, optimizer, [whole, whole], { clip: 1 });
    expect(waits.map((wait) => wait.mock.calls.length)).toEqual([1, 0]);
    waits.forEach((wait) => wait.mockRestore());
  }));

  test('500 steps leave as many tensors and bytes as one', () => withSetup({ dropout: 0.1 }, async ({ model, optimizer }) => {
    await trainStep(model, optimizer, whole);
    const { tensors, liveBytes } = cpu.device.stats();
    for (let i = 0; i < 500; i++) await trainStep(model, optimizer, whole, { checkpointing: i % 2 === 0 ? 'none' : 'blocks' });
    expect(cpu.device.stats()).toMatchObject({ tensors, liveBytes });
  }));
});

describe('trainStep: nothing changes, bit for bit,', () => {
  test.each([NaN, Infinity])('when B holds %d, and the next step is the first', (poison) => withSetup({}, async (setup) => {
    const { model, adapter, optimizer } = setup;
    const { b } = adapter.modules[2]!;
    const good = await b.data();
    b.upload(good.map((x, i) => (i === 3 ? poison : x)));
    const before = await stateOf(setup);
    const step = await trainStep(model, optimizer, [whole, whole], { clip: 1 });
    expect(step).toMatchObject({ skipped: true, reason: 'not finite', tokens: 2 * whole.tokens });
    expect(Number.isFinite(step.loss) && Number.isFinite(step.gradNorm)).toBe(false);
    expect(Buffer.compare(await stateOf(setup), before)).toBe(0);
    expect(optimizer.steps).toBe(0);
    b.upload(good);
    expect(await trainStep(model, optimizer, whole)).toMatchObject({ skipped: false, reason: null });
    expect(optimizer.steps).toBe(1);
  }));

  test('when no token has a label', () => withSetup({}, async (setup) => {
    const before = await stateOf(setup);
    const step = await trainStep(setup.model, setup.optimizer, [ignored(whole), ignored(whole)]);
    expect(step).toEqual({ loss: NaN, tokens: 0, gradNorm: 0, skipped: true, reason: 'no tokens', savedBytes: 0 });
    expect([Buffer.compare(await stateOf(setup), before), setup.optimizer.steps]).toEqual([0, 0]);
    expect((await trainStep(setup.model, setup.optimizer, [])).skipped).toBe(true);
  }));

  test('when a token id is outside the vocabulary: the step rejects, and the next one works', () => withSetup({}, async (setup) => {
    const before = await stateOf(setup);
    const bad = makeBatch([{ inputIds: Int32Array.of(1, V, 2), labels: Int32Array.of(1, 2, 3) }]);
    await expect(trainStep(setup.model, setup.optimizer, [whole, bad])).rejects.toMatchObject({ code: 'ERR_RANGE' });
    expect([Buffer.compare(await stateOf(setup), before), setup.optimizer.steps]).toEqual([0, 0]);
    expect((await trainStep(setup.model, setup.optimizer, whole)).skipped).toBe(false);
  }));

  test('a micro-batch without tokens beside one that has some makes no difference', async () => {
    const bits: Buffer[] = [];
    for (const window of [[whole], [ignored(whole), whole]]) {
      await withSetup({}, async (setup) => {
        await trainStep(setup.model, setup.optimizer, window);
        bits.push(await stateOf(setup));
      });
    }
    expect(Buffer.compare(bits[0]!, bits[1]!)).toBe(0);
  });
});

describe('trainStep: refusals', () => {
  test('without an active adapter, and with another adapter\'s optimizer', () => withSetup({}, async ({ model, optimizer }) => {
    attachLora(model, { name: 'other', targets: ['q_proj'] });
    await expect(trainStep(model, optimizer, whole)).rejects.toThrow(/other is active/);
    setAdapter(model, null);
    await expect(trainStep(model, optimizer, whole)).rejects.toThrow(/active adapter/);
    setAdapter(model, 'default');
    await expect(trainStep(model, optimizer, whole, { clip: NaN })).rejects.toMatchObject({ code: 'ERR_ARGUMENT' });
    expect(optimizer.steps).toBe(0);
  }));
});

describe('evaluate', () => {
  test('is the token-weighted mean without dropout, and leaves the mode', () => withSetup({ dropout: 0.5 }, async ({ model, adapter, optimizer }) => {
    adapter.mode = 'train';
    const one = await evaluate(model, [whole]);
    const many = await evaluate(model, (async function* () { for (const sample of samples) yield makeBatch([sample]); })());
    expect(many.tokens).toBe(one.tokens);
    expect(many.loss).toBeCloseTo(one.loss, 5);
    expect(one.perplexity).toBeCloseTo(Math.exp(one.loss), 10);
    expect(adapter.mode).toBe('train');
    expect((await trainStep(model, optimizer, whole)).loss).not.toBeCloseTo(one.loss, 5); // its masks do show
  }));

  test('without a token is told', () => withSetup({}, async ({ model }) => {
    await expect(evaluate(model, [ignored(whole)])).rejects.toMatchObject({ code: 'ERR_ARGUMENT' });
  }));
});
