import { launch } from '../../src/kernel.ts';
import { attentionCache } from '../reference/attention_cache.ts';
import { attentionMagnitudes, within } from './attention-bounds.ts';
import type { Bench } from './bench.ts';
import { parity } from './parity.ts';

interface Case {
  readonly start: number;
  readonly T: number;
  readonly rows: number; // of the cache
  readonly H: number;
  readonly G: number;
  readonly D: number;
  readonly window: number;
}

// Decoding (few rows: the keys are cut into runs of 64 and more) and prefill, at the beginning, in the middle and at the cache's end.
const cases: readonly Case[] = [
  { start: 0, T: 0, rows: 3, H: 2, G: 1, D: 8, window: 0 },
  { start: 0, T: 1, rows: 1, H: 1, G: 1, D: 4, window: 0 },
  { start: 0, T: 1, rows: 5, H: 4, G: 2, D: 20, window: 0 },
  { start: 17, T: 1, rows: 18, H: 1, G: 1, D: 16, window: 0 },
  { start: 64, T: 1, rows: 100, H: 2, G: 1, D: 64, window: 0 },
  { start: 290, T: 1, rows: 293, H: 9, G: 3, D: 64, window: 0 },
  { start: 200, T: 1, rows: 201, H: 4, G: 2, D: 128, window: 0 },
  { start: 540, T: 1, rows: 541, H: 5, G: 1, D: 32, window: 0 },
  { start: 290, T: 1, rows: 400, H: 6, G: 2, D: 7, window: 0 },
  { start: 500, T: 1, rows: 501, H: 3, G: 1, D: 64, window: 100 },
  { start: 500, T: 1, rows: 501, H: 2, G: 1, D: 16, window: 1 },
  { start: 255, T: 3, rows: 258, H: 4, G: 2, D: 16, window: 0 },
  { start: 310, T: 8, rows: 320, H: 3, G: 1, D: 80, window: 0 },
  { start: 310, T: 6, rows: 320, H: 4, G: 1, D: 16, window: 3 },
  { start: 80, T: 1, rows: 90, H: 30, G: 1, D: 8, window: 0 },
  { start: 0, T: 150, rows: 200, H: 6, G: 2, D: 20, window: 0 },
  { start: 100, T: 131, rows: 231, H: 4, G: 2, D: 64, window: 0 },
  { start: 100, T: 131, rows: 240, H: 2, G: 2, D: 16, window: 90 },
];

parity('attention_cache', {
  cases,
  halves: 'any rows',
  run(bench, testCase) {
    const { start, T, rows, H, G, D, window } = testCase;
    const scale = Math.fround(1 / Math.sqrt(D));
    const qkv = bench.randomActivation(T * (H + 2 * G) * D);
    const [kCache, vCache] = [cacheOf(bench, testCase), cacheOf(bench, testCase)];
    const y = bench.activationOutput([T, H * D]);
    const [keys, values] = [bench.activationInout(kCache, [rows, G * D]), bench.activationInout(vCache, [rows, G * D])];
    launch('attention_cache', y, keys, values, bench.activation(qkv, [T, (H + 2 * G) * D]), H, G, start, window, scale);
    const { want, size } = bench.once(() => {
      const { y: exact, lse } = attentionCache({ qkv, kCache, vCache, start, T, H, G, D, window, scale }); // fills the caches
      return { want: { y: exact, kCache, vCache }, size: magnitudesOf(testCase, { qkv, kCache, vCache, scale, y: exact, lse }) };
    });
    return [
      { name: 'y', got: y, want: want.y, within: within(bench, D, size) },
      { name: 'k_cache', got: keys, want: want.kCache, within: () => 0 },
      { name: 'v_cache', got: values, want: want.vCache, within: () => 0 },
    ];
  },
});

// What lies behind the tokens known so far must not be read.
function cacheOf(bench: Bench, { start, rows, G, D }: Case): Float64Array {
  return bench.randomActivation(rows * G * D).map((v, i) => (i < start * G * D ? v : NaN));
}

interface Result {
  readonly qkv: Float64Array;
  readonly kCache: Float64Array; // as the op leaves it
  readonly vCache: Float64Array;
  readonly scale: number;
  readonly y: Float64Array;
  readonly lse: Float64Array;
}

// As if the cached tokens were rows of qkv too; their queries are zeros, and their rows are cut off.
function magnitudesOf({ start, T, H, G, D, window }: Case, { qkv, kCache, vCache, scale, y, lse }: Result): Float64Array {
  const [length, width, row] = [start + T, (H + 2 * G) * D, G * D];
  const all = new Float64Array(length * width);
  for (let t = 0; t < length; t++) {
    if (t >= start) all.set(qkv.subarray((t - start) * width, (t - start) * width + H * D), t * width);
    all.set(kCache.subarray(t * row, (t + 1) * row), t * width + H * D);
    all.set(vCache.subarray(t * row, (t + 1) * row), t * width + (H + G) * D);
  }
  const behind = (values: Float64Array, pitch: number): Float64Array => {
    const padded = new Float64Array(length * pitch);
    padded.set(values, start * pitch);
    return padded;
  };
  const sizes = attentionMagnitudes({ qkv: all, offsets: [0, length], T: length, H, G, D, window, scale }, { y: behind(y, H * D), lse: behind(lse, H) }, start);
  return sizes.y.subarray(start * H * D);
}
