import { describe, expect, it } from 'vitest';
import { openDevice, probeDevices } from '../../src/device.ts';
import { launch } from '../../src/kernel.ts';
import type { Numbers } from '../reference/numbers.ts';
import { crossEntropy, crossEntropyGrad, IGNORE } from '../reference/cross_entropy.ts';
import { bound, parity } from './parity.ts';

// [rows, classes]; 2,048 logits are a span of the kernel.
const sizes = [[0, 8], [1, 1], [2, 3], [3, 7], [5, 16], [4, 17], [6, 33], [3, 997], [5, 2048], [3, 2049], [3, 6011]] as const;
const cases = sizes.flatMap(([T, V]) => [1, 30].flatMap((spread) => [1, 0.125].map((scale) => ({ T, V, spread, scale }))));

parity('cross_entropy_inplace', {
  cases,
  halves: 'any rows',
  run(bench, { T, V, spread, scale }) {
    const logits = bench.randomActivation(T * V, { scale: spread });
    const targets = Array.from(bench.random(T), (v, t) => (t % 3 === 1 ? IGNORE : Math.min(V - 1, Math.floor(Math.abs(v) * V * 0.4))));
    const [loss, gradient] = [bench.output([1]), bench.activationInout(logits, [T, V])];
    launch('cross_entropy_inplace', loss, gradient, bench.ints(targets), scale);
    const want = crossEntropyGrad({ logits, targets, T, V, scale });
    const { lse } = crossEntropy({ logits, targets, T, V });
    // A probability's exponent l - max is rounded where it is large; the target's own has 1 taken from it.
    const magnitude = want.map((_, i) => {
      const [t, v] = [Math.floor(i / V), i % V];
      if (targets[t] === IGNORE) return 0;
      const away = (logits[i] as number) - (lse[t] as number);
      return scale * (Math.exp(away) * (1 + Math.abs(away)) + (v === targets[t] ? 1 : 0));
    });
    const within = bound(V, magnitude, 12);
    return [
      { name: 'loss', got: loss, want: [crossEntropy({ logits, targets, T, V }).loss], within: bound(V, lossMagnitude(logits, targets, lse, V)) },
      { name: 'logits', got: gradient, want, within: (i) => (targets[Math.floor(i / V)] === IGNORE ? 0 : within(i)) },
    ];
  },
});

function lossMagnitude(logits: Numbers, targets: readonly number[], lse: Numbers, V: number): number {
  return targets.reduce((sum, target, t) => (target === IGNORE ? sum : sum + 1 + Math.abs(lse[t] as number) + Math.abs(logits[t * V + target] as number)), 0);
}

const kinds = (['cpu', 'cusim'] as const).filter((kind) => probeDevices(kind).count > 0);

describe.each(kinds)('cross_entropy_inplace, what numbers of all sizes do on %s', (kind) => {
  const run = (logits: readonly number[], targets: readonly number[], scale: number): Promise<Result> => runOn(kind, logits, targets, scale);

  it('logits that are masked with -inf have probability and gradient 0', async () => {
    const { loss, gradient } = await run([-Infinity, 2, -Infinity, 2], [1], 1);
    expect(loss).toBeCloseTo(Math.LN2, 6);
    expect(gradient).toEqual([0, -0.5, 0, 0.5]);
  });

  it('a whole span of -inf before the first number changes nothing', async () => {
    const logits = new Array<number>(2048).fill(-Infinity).concat([-1e30, -1e30]);
    const { loss, gradient } = await run(logits, [2049], 1);
    expect(loss).toBeCloseTo(Math.LN2, 6);
    expect(gradient.slice(-3)).toEqual([0, 0.5, -0.5]);
  });

  it.each([60, 1e-3])('logits that rise all along the row by %d, so that the maximum is never found early, lose no digits', async (height) => {
    const logits = Array.from({ length: 6011 }, (_, i) => Math.fround((i / 6010 - 0.5) * height));
    const { loss, gradient } = await run(logits, [3000], 1);
    const sum = logits.reduce((all, l) => all + Math.exp(l), 0);
    expect(Math.abs(loss - (Math.log(sum) - (logits[3000] as number)))).toBeLessThan(2e-6 * Math.log(sum));
    expect(Math.abs(gradient.reduce((all, g) => all + g, 0))).toBeLessThan(1e-6);
  });

  it('logits of 1e30 overflow nothing', async () => {
    const { loss, gradient } = await run([1e30, -1e30, 1e30], [0], 2);
    expect(loss).toBeCloseTo(Math.LN2, 6);
    expect(gradient).toEqual([-1, 0, 1]);
  });

  it('a NaN reaches the loss, wherever it is', async () => {
    for (const at of [0, 5, 2047, 2048, 2100]) {
      const logits = new Array<number>(2101).fill(-Infinity);
      logits[1] = 3;
      logits[at] = NaN;
      expect((await run(logits, [1], 1)).loss, `NaN at ${at}`).toBeNaN();
    }
  });

  it('a batch in which every row is ignored has loss 0 and gradient 0', async () => {
    expect(await run([1, NaN, 2, Infinity], [IGNORE, IGNORE], 1)).toEqual({ loss: 0, gradient: [0, 0, 0, 0] });
  });

  // On CUDA the other rows are done meanwhile; there an optimizer step asks.
  it.runIf(kind === 'cpu').each([3, -1, -99, 2 ** 31 - 1])('target %i is an error that names it and its row, and leaves the logits', async (target) => {
    await using device = await openDevice(kind);
    const logits = device.tensor(new Float32Array(6).fill(1), [2, 3]);
    launch('cross_entropy_inplace', device.empty([1]), logits, device.tensor(Int32Array.of(0, target)), 1);
    await expect(device.fence()).rejects.toMatchObject({ code: 'ERR_RANGE', message: expect.stringContaining(`target ${target} at row 1 is outside [0, 3)`) as string });
    expect(await logits.data()).toEqual(new Float32Array(6).fill(1));
  });
});

interface Result {
  readonly loss: number;
  readonly gradient: number[];
}

async function runOn(kind: string, logits: readonly number[], targets: readonly number[], scale: number): Promise<Result> {
  await using device = await openDevice(kind);
  const loss = device.empty([1]);
  const gradient = device.tensor(Float32Array.from(logits), [targets.length, logits.length / targets.length]);
  launch('cross_entropy_inplace', loss, gradient, device.tensor(Int32Array.from(targets)), scale);
  return { loss: (await loss.data())[0] as number, gradient: Array.from(await gradient.data(), (v) => v + 0) };
}
