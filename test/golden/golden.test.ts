import { existsSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { f32, goldenPath, i32, readJson, readTensors, type FamilyGolden, type RunGolden } from './read.ts';

const { families } = readJson<{ families: FamilyGolden[] }>('families', 'index.json');

describe('family goldens', () => {
  test.each(families)('$name: logits, loss and one gradient per adapter tensor are there and agree in shape', ({ name, model, T }) => {
    const golden = readTensors('families', name, 'golden.safetensors');
    const adapter = readTensors('families', name, 'adapter', 'adapter_model.safetensors');
    const { vocab_size: V } = readJson<{ vocab_size: number }>('families', model, 'config.json');
    expect(golden.get('input_ids')?.shape).toEqual([2, T]);
    expect(golden.get('logits')?.shape).toEqual([2, T, V]);
    expect(golden.get('logits_adapter')?.shape).toEqual([2, T, V]);
    const gradients = [...golden.keys()].filter((key) => key.startsWith('grad.'));
    expect(gradients.map((key) => key.slice(5)).sort()).toEqual([...adapter.keys()].sort());
    for (const [key, { shape }] of adapter) expect(golden.get(`grad.${key}`)?.shape).toEqual(shape);
  });

  test.each(families)('$name: the loss is the mean cross entropy of logits_adapter', ({ name, T }) => {
    const golden = readTensors('families', name, 'golden.safetensors');
    const [ids, logits] = [i32(golden, 'input_ids'), f32(golden, 'logits_adapter')];
    const V = logits.length / ids.length;
    let sum = 0;
    for (let row = 0; row < 2; row++) {
      for (let t = 0; t + 1 < T; t++) {
        const at = (row * T + t) * V;
        const exps = logits.slice(at, at + V).reduce((total, z) => total + Math.exp(z), 0);
        sum += Math.log(exps) - logits[at + ids[row * T + t + 1]!]!;
      }
    }
    expect(sum / (2 * (T - 1))).toBeCloseTo(f32(golden, 'loss')[0]!, 4);
  });
});

describe.each(['llama_masked_loraplus', 'gpt2_masked_warmup'])('run golden %s', (name) => {
  const run = readJson<RunGolden>('runs', name, 'run.json');

  test('its base model is there, and the log has a line per step', () => {
    expect(existsSync(goldenPath(run.base_model, 'config.json'))).toBe(true);
    expect(run.log.map(({ step }) => step)).toEqual([1, 2, 3, 4, 5, 6]);
  });

  test('the tokens of each step are its labels after the shift, and micro-batches differ in them', () => {
    const batches = readTensors('runs', name, 'batches.safetensors');
    const labels = i32(batches, 'labels');
    const { steps, micro, B, T } = run.config;
    expect(batches.get('labels')?.shape).toEqual([steps, micro, B, T]);
    const perMicro = Array.from({ length: steps * micro }, (_, m) =>
      labels.subarray(m * B * T, (m + 1) * B * T).reduce((count, label, i) => count + (i % T > 0 && label !== -100 ? 1 : 0), 0));
    expect(run.log.map(({ tokens }) => tokens)).toEqual(run.log.map((_, s) => perMicro[2 * s]! + perMicro[2 * s + 1]!));
    expect(perMicro[0]).not.toBe(perMicro[1]);
  });

  test('training moved the adapter and lowered the evaluation loss', () => {
    const [before, after] = ['initial', 'final'].map((what) => readTensors('runs', name, `${what}_adapter`, 'adapter_model.safetensors'));
    expect([...after!.keys()]).toEqual([...before!.keys()]);
    for (const [key, { data }] of after!) expect(data).not.toEqual(before!.get(key)!.data);
    expect(run.eval_loss_after).toBeLessThan(run.eval_loss_before);
  });
});
