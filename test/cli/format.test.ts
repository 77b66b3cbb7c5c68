import { describe, expect, test } from 'vitest';
import { bytes, digits, duration } from '../../src/cli/format.ts';
import { progressOn } from '../../src/cli/progress.ts';
import { sparkline } from '../../src/cli/sparkline.ts';
import type { StepEvent } from '../../src/train/run-events.ts';

describe('what a terminal shows', () => {
  test.each([[0, '0 B'], [1023, '1023 B'], [1536, '1.50 KiB'], [150 * 2 ** 20, '150 MiB'], [3 * 2 ** 40, '3.00 TiB']])('%d bytes are %s', (count, text) => expect(bytes(count)).toBe(text));
  test.each([[0.04, '0.0s'], [59.6, '1m00s'], [75, '1m15s'], [3 * 3600 + 60, '3h01m'], [NaN, '?']])('%d seconds are %s', (seconds, text) => expect(duration(seconds)).toBe(text));
  test.each([[2.34567, '2.3457'], [0.0002, '2.00e-4'], [0, '0.0000'], [NaN, 'NaN']])('%d is %s', (value, text) => expect(digits(value)).toBe(text));

  test('a curve has its highest mean as a full block and its lowest as a thin one', () => {
    expect(sparkline([4, 3, 2, 1], 4)).toBe('█▆▃▁');
    expect(sparkline([4, 4, 1, 1], 2)).toBe('█▁');
    expect(sparkline([5], 10)).toBe('▁');
    expect(sparkline([NaN, 1, 2], 3)).toBe(' ▁█');
    expect(sparkline([], 10)).toBe('');
  });

  const step = (n: number): StepEvent => ({ type: 'step', step: n, loss: 1.5, tokens: 10, gradNorm: 1, lr: 1e-4, tokensPerSecond: 1234, epoch: 0.1, skipped: false, memory: 2 ** 20 });

  test('a terminal has one line that is written over, as wide as it is, and other news above it', () => {
    let written = '';
    const progress = progressOn({ write: (text) => (written += text), isTTY: true, columns: 30 }, 3);
    for (const n of [1, 2]) progress.show(step(n));
    progress.show({ type: 'save', step: 2, folder: 'out/checkpoint-2' });
    progress.show(step(3));
    expect(written.split('\r\x1b[2K').map((part) => part.length)).toEqual([0, 29, 29, 'saved out/checkpoint-2\n'.length, 29]);
  });

  test('a file gets plain lines: about 200 of a long run, with its first and last step', () => {
    const lines: string[] = [];
    const progress = progressOn({ write: (text) => lines.push(text) }, 10_000);
    for (let n = 1; n <= 10_000; n++) progress.show(step(n));
    expect(lines).toHaveLength(201);
    expect([lines[0]?.startsWith('step     1/10000'), lines.at(-1)?.startsWith('step 10000/10000')]).toEqual([true, true]);
  });
});
