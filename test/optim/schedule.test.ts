import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { schedule, type ScheduleKind } from '../../src/optim/schedule.ts';

interface Golden {
  kind: ScheduleKind;
  lr: number;
  warmup: number;
  steps: number;
  rates: number[];
}

// Written by test/golden/schedule.py with transformers 5.17.
const goldens = JSON.parse(readFileSync(new URL('../golden/schedule.json', import.meta.url), 'utf8')) as Golden[];

describe('schedule: gives the rates of transformers', () => {
  test.each(goldens)('$kind, lr $lr, warm-up $warmup of $steps steps', ({ kind, lr, warmup, steps, rates }) => {
    const rate = schedule(kind, { lr, warmup, steps });
    // One unit in the last place for cos, which neither libm nor V8 rounds correctly.
    rates.forEach((expected, step) => expect(Math.abs(rate(step) - expected)).toBeLessThanOrEqual(lr * 2 ** -52));
  });

  test('the goldens hold every kind', () => {
    expect(new Set(goldens.map(({ kind }) => kind)).size).toBe(3);
  });
});

describe('schedule', () => {
  test('linear: reaches zero at the last step and stays there', () => {
    const rate = schedule('linear', { lr: 1, steps: 4 });
    expect([0, 3, 4, 5].map(rate)).toEqual([1, 0.25, 0, 0]);
  });

  test('constant: needs no number of steps', () => {
    expect(schedule('constant', { lr: 0.5, steps: Infinity })(1e9)).toBe(0.5);
  });

  test('all that is out of range is told at once', () => {
    expect(() => schedule('step' as ScheduleKind, { lr: -1, warmup: 0.5, steps: NaN })).toThrow(/constant, linear, cosine[^]*lr must[^]*warmup must[^]*steps must/);
  });
});
