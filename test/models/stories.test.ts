import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, test } from 'vitest';
import { loadTokenizer } from '../../src/data/tokenizer.ts';
import { openDevice } from '../../src/device.ts';
import { generate } from '../../src/generation/generate.ts';
import { loadModel, type LoadOptions } from '../../src/models/load.ts';
import { f32, goldenPath, i32, readTensors } from '../golden/read.ts';
import { hasSharedData, sharedData } from '../shared-data.ts';
import { cachedLogits, live, logitsOf, worst } from './run.ts';

interface StoryCase {
  folder: string;
  base: 'stories260K' | 'stories3M';
  weights?: LoadOptions['weights'];
  dtype: string;
  within: number; // of logits that reach 23, computed in f64 from f32 weights
}

const cases: StoryCase[] = (['stories260K', 'stories3M'] as const).flatMap((base) => [
  { folder: `${base}-fp32`, base, dtype: 'f32', within: 2e-4 },
  { folder: `${base}-fp16`, base, dtype: 'f16', within: 0.05 },
  { folder: `${base}-bf16`, base, dtype: 'bf16', within: 0.5 },
  { folder: `${base}-fp32`, base, dtype: 'f16', weights: 'f16', within: 0.05 },
  { folder: `${base}-fp32`, base, dtype: 'bf16', weights: 'bf16', within: 0.5 },
  { folder: `${base}-fp16`, base, dtype: 'f32', weights: 'f32', within: 0.05 },
]);
cases.push({ folder: 'stories3M-fp16-sharded', base: 'stories3M', dtype: 'f16', within: 0.05 });

describe.skipIf(!hasSharedData).each(cases)('$folder with weights $weights', ({ folder, base, weights, dtype, within }) => {
  test(`gives the expected logits within ${within}, at once and through a cache`, async () => {
    using device = await openDevice('cpu');
    const golden = readTensors(path.relative(goldenPath(), sharedData('expected', `${base}_logits.safetensors`)));
    const [ids, want] = [i32(golden, 'input_ids'), f32(golden, 'logits')];
    const model = await loadModel(sharedData('models', folder), { device, ...(weights === undefined ? {} : { weights }) });
    expect(model.facts.dtype).toBe(dtype);
    const got = await logitsOf(model, [ids]);
    expect(worst(got, want)).toBeLessThan(within);
    const cached = await cachedLogits(model, [...ids], [Math.floor(ids.length / 2), 7, ids.length - Math.floor(ids.length / 2) - 7]);
    expect(worst(cached, got)).toBeLessThan(1e-4);
    model.dispose();
    expect(live(device)).toBe(0);
  });
});

interface Greedy {
  start_ids: number[];
  max_new_tokens: number;
  stop_ids: number[];
  text: string;
}

describe.skipIf(!hasSharedData).each(['stories260K-fp32', 'stories260K-fp16', 'stories3M-fp32', 'stories3M-fp16', 'stories3M-fp16-sharded'])('%s', (folder) => {
  test('continues greedily with the expected text', async () => {
    const expected = JSON.parse(readFileSync(sharedData('expected', 'greedy.json'), 'utf8')) as Record<string, Greedy>;
    const { start_ids, max_new_tokens, stop_ids, text } = expected[folder.split('-')[0] as string] as Greedy;
    using device = await openDevice('cpu');
    const model = await loadModel(sharedData('models', folder), { device });
    const tokenizer = await loadTokenizer(sharedData('models', folder));
    let got = '';
    for await (const token of generate(model, tokenizer, start_ids, { maxTokens: max_new_tokens, stopIds: stop_ids })) got += token.text;
    expect(got).toBe(text);
    model.dispose();
    expect(live(device)).toBe(0);
  });
});

test.skipIf(!hasSharedData || !existsSync(sharedData('models', 'stories3M-fp16')))('a mapped 16-bit model takes no device memory for its matrices', async () => {
  using device = await openDevice('cpu');
  const model = await loadModel(sharedData('models', 'stories3M-fp16'), { device });
  const norms = (2 * 6 + 1) * 192 * 4;
  expect(device.stats().liveBytes).toBeLessThan(norms + 64 * 13);
  model.dispose();
});
