import { describe, expect, test } from 'vitest';
import { of, opCases } from '../golden/read.ts';
import { attention, attentionGrad } from './attention.ts';
import { attentionCache } from './attention_cache.ts';
import { dot, normals, slopes, worst } from './finite-difference.ts';

const cases = [
  { name: 'one sequence', offsets: [0, 4], T: 4, H: 2, G: 2, D: 3, window: 0, scale: 0.6 },
  { name: 'packed, an empty sequence between', offsets: [0, 2, 2, 5], T: 5, H: 4, G: 2, D: 2, window: 0, scale: 1 },
  { name: 'window, one kv head', offsets: [0, 6], T: 6, H: 3, G: 1, D: 2, window: 3, scale: 0.7 },
  { name: 'window of one', offsets: [0, 3], T: 3, H: 1, G: 1, D: 2, window: 1, scale: 0.7 },
];

const width = ({ T, H, G, D }: { T: number; H: number; G: number; D: number }) => T * (H + 2 * G) * D;

describe('attention', () => {
  test.each(cases)('the gradient is the slope of the forward: $name', ({ name: _, ...args }) => {
    const qkv = normals(width(args), 1);
    const dy = normals(args.T * args.H * args.D, 2);
    const f = (at: Float64Array) => dot(attention({ qkv: at, ...args }).y, dy);
    expect(worst(attentionGrad({ dy, qkv, ...args }), slopes(f, qkv))).toBeLessThan(1e-8);
  });

  test.each(opCases('attention'))('agrees with PyTorch: $name', ({ numbers, arrays }) => {
    const size = (key: string) => of(numbers, key);
    const args = { T: size('T'), H: size('H'), G: size('G'), D: size('D'), window: size('window'), scale: size('scale') };
    const inputs = { qkv: of(arrays, 'qkv'), offsets: of(arrays, 'offsets'), ...args };
    const { y, lse } = attention(inputs);
    expect(worst(y, of(arrays, 'y'))).toBeLessThan(1e-12);
    expect(worst(lse, of(arrays, 'lse'))).toBeLessThan(1e-12);
    expect(worst(attentionGrad({ ...inputs, dy: of(arrays, 'dy') }), of(arrays, 'dqkv'))).toBeLessThan(1e-12);
  });

  test('a window of one copies v', () => {
    const qkv = [1, 2, 3, 4, 5, 6]; // T = 2: q, k, v
    expect([...attention({ qkv, offsets: [0, 2], T: 2, H: 1, G: 1, D: 1, window: 1, scale: 1 }).y]).toEqual([3, 6]);
  });
});

describe('attention_cache', () => {
  test.each([0, 3])('tokens in pieces of 1, 3 and 2 give the rows of the whole: window %i', (window) => {
    const sizes = { H: 4, G: 2, D: 3, window, scale: 0.5 };
    const qkv = normals(width({ T: 6, ...sizes }), 3);
    const whole = attention({ qkv, offsets: [0, 6], T: 6, ...sizes });
    const caches = { kCache: new Float64Array(9 * 6).fill(NaN), vCache: new Float64Array(9 * 6).fill(NaN) };
    const y: number[] = [];
    const lse: number[] = [];
    for (const [start, T] of [[0, 1], [1, 3], [4, 2]] as const) {
      const piece = attentionCache({ qkv: qkv.slice(start * 24, (start + T) * 24), ...caches, start, T, ...sizes });
      y.push(...piece.y);
      lse.push(...piece.lse);
    }
    expect(worst(y, whole.y)).toBeLessThan(1e-14);
    expect(worst(lse, whole.lse)).toBeLessThan(1e-14);
    expect(caches.kCache.slice(6 * 6).every(Number.isNaN)).toBe(true);
  });
});
