import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { streamingDecoder } from '../src/data/streaming-decoder.ts';
import type { Tokenizer } from '../src/data/tokenizer.ts';
import { type Device, openDevice } from '../src/device.ts';
import { type BatchToken, generate, generateBatch, type GenerateEnd, type GenerateOptions, type GeneratedToken } from '../src/generation/generate.ts';
import { loadModel } from '../src/models/load.ts';
import type { Model } from '../src/models/model.ts';
import { makeSampler } from '../src/generation/sampling.ts';
import { stopFilter } from '../src/generation/stop-filter.ts';
import { goldenPath } from './golden/read.ts';
import { brokenFolder } from './models/broken-folder.ts';
import { live, logitsOf } from './models/run.ts';

let device: Device;
let model: Model;
beforeAll(async () => {
  device = await openDevice('cpu');
  model = await loadModel(goldenPath('families', 'llama_tied'), { device });
});
afterAll(() => {
  model.dispose();
  device.close();
});

/** One character an id: 97 is '!', and so on; ids of `stopIds` end a text. */
function letters(stopIds: readonly number[] = []): Tokenizer {
  const decode = (ids: readonly number[]): string => ids.map((id) => String.fromCharCode(32 + id)).join('');
  return {
    vocabSize: 96,
    encode: (text) => [...text].map((letter) => letter.charCodeAt(0) - 32),
    decode,
    ...{ bosId: 1, eosId: 2, padId: null, stopIds, chatTemplate: null },
    decoder: () => streamingDecoder(decode),
  };
}

interface Outcome {
  ids: number[];
  text: string;
  end: GenerateEnd;
}

async function collect(run: AsyncGenerator<GeneratedToken, GenerateEnd>): Promise<Outcome> {
  const ids: number[] = [];
  let text = '';
  for (;;) {
    const { value, done } = await run.next();
    if (done === true) return { ids, text, end: value };
    ids.push(value.id);
    text += value.text;
  }
}

/** The likeliest token each time, from whole forward passes without a cache. */
async function greedyByHand(on: Model, prompt: readonly number[], count: number): Promise<number[]> {
  const ids = [...prompt];
  for (let i = 0; i < count; i++) {
    const last = (await logitsOf(on, [ids])).slice(-on.facts.vocabSize);
    ids.push(last.indexOf(Math.max(...last)));
  }
  return ids.slice(prompt.length);
}

const prompt = [5, 17, 40];

describe('generate', () => {
  test('is greedy by default, and what a forward pass without cache chooses', async () => {
    const { ids, text, end } = await collect(generate(model, null, prompt, { maxTokens: 20 }));
    expect(ids).toEqual(await greedyByHand(model, prompt, 20));
    expect([text, end]).toEqual(['', 'length']);
  });

  test('runs a long prompt in pieces, with the same result', async () => {
    const folder = brokenFolder('llama_tied', { config: { max_position_embeddings: 4096 } });
    const long = await loadModel(folder.path, { device });
    for (const length of [512, 513, 1300]) {
      const ids = Array.from({ length }, (_, i) => (i * 7) % 96);
      expect((await collect(generate(long, null, ids, { maxTokens: 3 }))).ids).toEqual(await greedyByHand(long, ids, 3));
    }
    long.dispose();
    folder.remove();
  });

  test('treats the pieces of a prompt as one where rope depends on the length', async () => {
    const folder = brokenFolder('llama_rope_dynamic', { config: { rope_parameters: { rope_type: 'dynamic', factor: 100, rope_theta: 100 } } });
    const dynamic = await loadModel(folder.path, { device });
    for (const step of [1, 5, 7, 11, 13, 17, 19, 23]) {
      const ids = Array.from({ length: 700 }, (_, i) => (i * step) % 96);
      expect((await collect(generate(dynamic, null, ids, { maxTokens: 1 }))).ids).toEqual(await greedyByHand(dynamic, ids, 1));
    }
    dynamic.dispose();
    folder.remove();
  });

  test('repeats itself for a seed, and not for another', async () => {
    const sample = (seed: number) => collect(generate(model, null, prompt, { maxTokens: 30, temperature: 1.5, seed }));
    const [first, again, other] = [await sample(7), await sample(7), await sample(8)];
    expect(first.ids).toEqual(again.ids);
    expect(first.ids).not.toEqual(other.ids);
  });

  test.each([
    { what: 'top-k of 1', options: { temperature: 2, topK: 1 } },
    { what: 'a tiny top-p', options: { temperature: 2, topP: 1e-9 } },
    { what: 'a tiny temperature', options: { temperature: 1e-6 } },
  ])('with $what chooses as greedy does', async ({ options }) => {
    const greedy = await collect(generate(model, null, prompt, { maxTokens: 15 }));
    expect((await collect(generate(model, null, prompt, { maxTokens: 15, ...options }))).ids).toEqual(greedy.ids);
  });

  test('ends behind a stop token, which comes out without text', async () => {
    const { ids, text } = await collect(generate(model, letters(), prompt, { maxTokens: 12 }));
    const stop = ids[6] as number;
    const first = ids.indexOf(stop);
    const want = { ids: ids.slice(0, first + 1), text: text.slice(0, first), end: 'stop' };
    expect(await collect(generate(model, letters(), prompt, { maxTokens: 12, stopIds: [stop] }))).toEqual(want);
    expect(await collect(generate(model, letters([stop]), prompt, { maxTokens: 12 }))).toEqual(want);
  });

  test('ends at a stop text that straddles tokens, and leaves it out', async () => {
    const { ids, text } = await collect(generate(model, letters(), prompt, { maxTokens: 12 }));
    const stop = text.slice(4, 7);
    const at = text.indexOf(stop);
    const got = await collect(generate(model, letters(), prompt, { maxTokens: 12, stop: ['never', stop] }));
    expect(got).toEqual({ ids: ids.slice(0, at + 3), text: text.slice(0, at), end: 'stop' });
  });

  test('gives out at the end what might have become a stop text', async () => {
    const { text } = await collect(generate(model, letters(), prompt, { maxTokens: 12 }));
    const got = await collect(generate(model, letters(), prompt, { maxTokens: 12, stop: [`${text.slice(-3)}?`] }));
    expect(got).toMatchObject({ text, end: 'length' });
  });

  test('ends where the model has no more positions', async () => {
    const full = Array.from({ length: 60 }, (_, i) => i + 1);
    const { ids, end } = await collect(generate(model, null, full, { maxTokens: 100 }));
    expect(end).toBe('positions');
    expect(ids).toHaveLength(64 - 60 + 1); // the last one is chosen by position 64 and needs none of its own
    expect(await collect(generate(model, null, full, { maxTokens: 0 }))).toEqual({ ids: [], text: '', end: 'length' });
  });

  test('starts from the beginning token for an empty text', async () => {
    expect((await collect(generate(model, letters(), '', { maxTokens: 4 }))).ids).toEqual(await greedyByHand(model, [1], 4));
    expect((await collect(generate(model, letters(), 'A', { maxTokens: 4 }))).ids).toEqual(await greedyByHand(model, [33], 4));
  });

  test('ends behind the token in work when its signal comes', async () => {
    const abort = new AbortController();
    const seen: number[] = [];
    const onToken = ({ id }: GeneratedToken): void => void (seen.push(id) === 3 && abort.abort());
    const { ids, end } = await collect(generate(model, null, prompt, { maxTokens: 50, signal: abort.signal, onToken }));
    expect([ids.length, end]).toEqual([3, 'aborted']);
    expect(seen).toEqual(ids);
    expect((await collect(generate(model, null, prompt, { signal: AbortSignal.abort() }))).end).toBe('aborted');
  });

  test('leaves no tensor behind: at the end, a break, an error of the reader, or one of its own', async () => {
    await collect(generate(model, null, prompt, { maxTokens: 40 })); // the rope table is made once
    const before = live(device);
    await collect(generate(model, null, prompt, { maxTokens: 5 }));
    expect(live(device)).toBe(before);
    for await (const _ of generate(model, null, prompt)) break;
    expect(live(device)).toBe(before);
    const thrower = generate(model, null, prompt, { onToken() { throw new Error('mine'); } });
    await expect(collect(thrower)).rejects.toThrow('mine');
    expect(live(device)).toBe(before);
    await expect(collect(generate(model, null, [5, 96]))).rejects.toMatchObject({ code: 'ERR_RANGE' });
    expect(live(device)).toBe(before);
  });

  const hostile: { options?: GenerateOptions; prompt?: string | number[]; says: string[] }[] = [
    { options: { maxTokens: 1.5, temperature: -1, topK: -1, topP: 0, seed: -1, stop: [''] }, says: ['maxTokens', 'temperature', 'topK', 'topP', 'seed', 'stop must hold no empty text', 'stop needs a tokenizer'] },
    { options: { temperature: NaN, topP: 1.01 }, says: ['temperature must be 0 or more (found NaN)', 'topP must be above 0 and at most 1 (found 1.01)'] },
    { prompt: 'text', says: ['a prompt must be token ids'] },
    { prompt: [], says: ['a prompt must have 1 to 64 tokens, the positions of this model (found 0)'] },
    { prompt: Array<number>(65).fill(3), says: ['(found 65)'] },
  ];
  test.each(hostile)('refuses $says', async ({ options, prompt: given = prompt, says }) => {
    const error = (await collect(generate(model, null, given, options)).then(() => null, (fault: unknown) => fault)) as { code: string; message: string } | null;
    expect(error?.code).toBe('ERR_ARGUMENT');
    for (const words of says) expect(error?.message).toContain(words);
  });
});

describe('generateBatch', () => {
  const prompts = [prompt, [9], [1, 2, 3, 4, 5, 6, 7, 8], [60, 61], prompt];
  const collectBatch = async (run: AsyncGenerator<BatchToken, GenerateEnd[]>, count: number): Promise<{ ids: number[][]; ends: GenerateEnd[] }> => {
    const ids = Array.from({ length: count }, (): number[] => []);
    for (;;) {
      const { value, done } = await run.next();
      if (done === true) return { ids, ends: value };
      ids[value.prompt]?.push(value.id);
    }
  };

  test.each([1, 2, 3, 16])('with %i texts at a time writes what generate() writes for each', async (batchSize) => {
    const alone = await Promise.all(prompts.map((ids) => collect(generate(model, null, ids, { maxTokens: 20 }))));
    const got = await collectBatch(generateBatch(model, null, prompts, { maxTokens: 20, batchSize }), prompts.length);
    expect(got).toEqual({ ids: alone.map(({ ids }) => ids), ends: alone.map(({ end }) => end) });
  });

  test('samples prompt i with seed + i, and gives the place of a text that has ended to the next', async () => {
    const options = { maxTokens: 25, temperature: 1.2, stopIds: [7, 11, 30, 50, 71, 90] };
    const alone: Outcome[] = [];
    for (const [i, ids] of prompts.entries()) alone.push(await collect(generate(model, null, ids, { ...options, seed: 5 + i })));
    const got = await collectBatch(generateBatch(model, null, prompts, { ...options, seed: 5, batchSize: 2 }), prompts.length);
    expect(got).toEqual({ ids: alone.map(({ ids }) => ids), ends: alone.map(({ end }) => end) });
    expect(new Set(alone.map(({ ids }) => ids.length)).size).toBeGreaterThan(1); // they do end at different times
  });

  test('gives each length its own table where rope depends on the length', async () => {
    const folder = brokenFolder('llama_rope_dynamic', { config: { rope_parameters: { rope_type: 'dynamic', factor: 100, rope_theta: 100 } } });
    const dynamic = await loadModel(folder.path, { device });
    const long = [100, 70, 3, 100].map((length, step) => Array.from({ length }, (_, i) => (i * (step + 1)) % 96));
    const got = await collectBatch(generateBatch(dynamic, null, long, { maxTokens: 4 }), long.length);
    for (const [i, ids] of long.entries()) expect(got.ids[i]).toEqual((await collect(generate(dynamic, null, ids, { maxTokens: 4 }))).ids);
    dynamic.dispose();
    folder.remove();
  });

  test('ends all behind the token in work when its signal comes, and leaves no tensor behind', async () => {
    await collectBatch(generateBatch(model, null, prompts, { maxTokens: 40 }), prompts.length);
    const before = live(device);
    const abort = new AbortController();
    let seen = 0;
    const run = generateBatch(model, null, prompts, { signal: abort.signal, onToken: () => void (++seen === 9 && abort.abort()) });
    const { ids, ends } = await collectBatch(run, prompts.length);
    expect([ids.flat().length, ends]).toEqual([9, prompts.map(() => 'aborted')]);
    for await (const { prompt: i } of generateBatch(model, null, prompts)) if (i === 3) break;
    expect(live(device)).toBe(before);
  });

  test('has nothing to do for no prompts or no tokens, and refuses one bad prompt before any work', async () => {
    expect(await collectBatch(generateBatch(model, null, []), 0)).toEqual({ ids: [], ends: [] });
    expect((await collectBatch(generateBatch(model, null, prompts, { maxTokens: 0 }), 5)).ends).toEqual(prompts.map(() => 'length'));
    await expect(collectBatch(generateBatch(model, null, [prompt, []]), 2)).rejects.toMatchObject({ code: 'ERR_ARGUMENT' });
    await expect(collectBatch(generateBatch(model, null, prompts, { batchSize: 0 }), 5)).rejects.toThrow('batchSize must be a whole number from 1 up (found 0)');
  });
});

describe('sampler', () => {
  const logits = Float32Array.from([1, 3, -Infinity, 2, 3, 0]);
  const all = { temperature: 1, topK: 0, topP: 1, seed: 1 };
  const shares = (settings: Partial<typeof all>, draws = 40_000): number[] => {
    const sample = makeSampler({ ...all, ...settings });
    const counts = Array<number>(logits.length).fill(0);
    for (let i = 0; i < draws; i++) counts[sample(logits)]!++;
    return counts.map((count) => count / draws);
  };
  const softmax = (temperature: number, kept: readonly number[]): number[] => {
    const weights = [...logits].map((logit, id) => (kept.includes(id) ? Math.exp(logit / temperature) : 0));
    const sum = weights.reduce((a, b) => a + b);
    return weights.map((weight) => weight / sum);
  };

  // p = .396 .396 .146 .054 .007 in this order of ids: 1, 4, 3, 0, 5.
  test.each([
    { settings: {}, kept: [0, 1, 3, 4, 5] },
    { settings: { temperature: 2 }, kept: [0, 1, 3, 4, 5] },
    { settings: { topK: 3 }, kept: [1, 3, 4] },
    { settings: { topK: 1 }, kept: [1] },
    { settings: { topK: 100 }, kept: [0, 1, 3, 4, 5] },
    { settings: { topP: 0.7 }, kept: [1, 4] },
    { settings: { topP: 0.85 }, kept: [1, 3, 4] },
    { settings: { topK: 3, topP: 0.5 }, kept: [1, 4] },
    { settings: { seed: 2 ** 53 - 1 }, kept: [0, 1, 3, 4, 5] },
  ])('draws by softmax of what $settings leaves', ({ settings, kept }) => {
    const got = shares(settings);
    const want = softmax('temperature' in settings ? (settings.temperature as number) : 1, kept);
    // Five standard deviations of a share of 40,000 draws.
    want.forEach((share, id) => expect(Math.abs(got[id]! - share)).toBeLessThanOrEqual(5 * Math.sqrt((share * (1 - share)) / 40_000)));
  });

  test('takes the first of the likeliest at temperature 0', () => {
    expect(makeSampler({ ...all, temperature: 0 })(logits)).toBe(1);
  });

  test.each([[[1, NaN]], [[Infinity, 0]], [[-Infinity, -Infinity]]])('refuses logits %j', (bad) => {
    for (const temperature of [0, 1]) {
      expect(() => makeSampler({ ...all, temperature })(Float32Array.from(bad))).toThrow(expect.objectContaining({ code: 'ERR_NONFINITE' }));
    }
  });
});

describe('stop filter', () => {
  test.each([
    { stops: ['END'], pieces: ['aE', 'N', 'Ex'], text: 'aENEx', stopped: false },
    { stops: ['END'], pieces: ['aE', 'N', 'D', 'more'], text: 'a', stopped: true },
    { stops: ['END'], pieces: ['abENDcEND'], text: 'ab', stopped: true },
    { stops: ['aab'], pieces: ['a', 'a', 'a', 'b'], text: 'a', stopped: true },
    { stops: ['xyz', 'y'], pieces: ['x', 'y', 'z'], text: 'x', stopped: true },
    { stops: ['bc', 'abcd'], pieces: ['a', 'b', 'c'], text: 'a', stopped: true },
    { stops: [], pieces: ['a', 'b'], text: 'ab', stopped: false },
    { stops: ['\n\n'], pieces: ['one\n', 'two\n'], text: 'one\ntwo\n', stopped: false },
  ])('$pieces with stops $stops is $text', ({ stops, pieces, text, stopped }) => {
    const filter = stopFilter(stops);
    let got = '';
    let ended = false;
    for (const piece of pieces) {
      if (ended) break;
      const next = filter.push(piece);
      got += next.text;
      ended = next.stopped;
    }
    expect([ended ? got : got + filter.flush(), ended]).toEqual([text, stopped]);
  });

  test('holds back no more than could be a beginning', () => {
    const filter = stopFilter(['END']);
    expect(filter.push('abc')).toEqual({ text: 'abc', stopped: false });
    expect(filter.push('xE')).toEqual({ text: 'x', stopped: false });
    expect(filter.push('E')).toEqual({ text: 'E', stopped: false });
  });
});
