import { existsSync, readdirSync } from 'node:fs';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Device, openDevice } from '../../src/device.ts';
import { loadModel } from '../../src/models/load.ts';
import type { Model } from '../../src/models/model.ts';
import { f32, type FamilyGolden, goldenPath, i32, readJson, readTensors } from '../golden/read.ts';
import { cachedLogits, live, logitsOf, worst } from './run.ts';

const { families } = readJson<{ families: FamilyGolden[] }>('families', 'index.json');
const models = families.filter(({ name }) => existsSync(goldenPath('families', name, 'config.json')));

test('models: every family has a golden', () => {
  expect(models.length).toBeGreaterThanOrEqual(23);
  expect(new Set(models.map(({ modelType }) => modelType))).toEqual(new Set(['llama', 'mistral', 'qwen2', 'qwen3', 'gpt2']));
});

describe.each(models)('$name', ({ name, modelType, T, tolerance }) => {
  const golden = readTensors('families', name, 'golden.safetensors');
  const ids = i32(golden, 'input_ids');
  const sequences = [ids.subarray(0, T), ids.subarray(T)];
  const want = f32(golden, 'logits');
  let device: Device;
  let model: Model;
  beforeAll(async () => {
    device = await openDevice('cpu');
    model = await loadModel(goldenPath('families', name), { device });
  });
  afterAll(() => {
    model.dispose();
    const left = live(device);
    device.close();
    expect(left, 'tensors left after dispose').toBe(0);
  });

  test('gives the logits of transformers, two sequences packed', async () => {
    expect(worst(await logitsOf(model, sequences), want)).toBeLessThan(tolerance.logits);
  });

  test('gives the same logits through a cache: a prompt at once, then token by token', async () => {
    const vocabulary = want.length / ids.length;
    for (const [s, sequence] of sequences.entries()) {
      const pieces = [T - 4, 1, 1, 2];
      const got = await cachedLogits(model, [...sequence], pieces);
      expect(worst(got, want.subarray(s * T * vocabulary, (s + 1) * T * vocabulary))).toBeLessThan(tolerance.logits);
    }
  });

  test('tells what it is', () => {
    const { facts } = model;
    expect(facts.family).toBe(modelType);
    expect(facts.vocabSize).toBe(want.length / ids.length);
    expect(facts.parameters).toBe(storedNumbers(model));
    expect(model.linears.flatMap(({ parts }) => parts.map((part) => part.name)).includes('lm_head')).toBe(!facts.tied);
    expect(model.head.weight.rows).toBe(facts.vocabSize);
  });

  test('leaves no tensor behind a run', async () => {
    await logitsOf(model, sequences);
    const before = live(device);
    await logitsOf(model, sequences);
    await cachedLogits(model, [...ids.subarray(0, T)], [T]);
    expect(live(device)).toBe(before);
  });
});

/** Numbers in the model's files: every one must be in use, none twice. */
function storedNumbers({ facts }: Model): number {
  const name = path.basename(facts.folder);
  const files = readdirSync(facts.folder).filter((file) => file.endsWith('.safetensors') && file !== 'golden.safetensors');
  return files.flatMap((file) => [...readTensors('families', name, file).values()]).reduce((sum, { data }) => sum + data.length, 0);
}
