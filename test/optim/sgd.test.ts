import { describe, expect, test } from 'vitest';
import { Sgd, type SgdOptions } from '../../src/optim/sgd.ts';
import { onCpu } from '../on-cpu.ts';
import { worst } from '../reference/finite-difference.ts';
import { sgdInplace } from '../reference/sgd.ts';
import { bytesOf, counts, filledArena, gradientOf, norm, stepOn, total } from './fixture.ts';

const cpu = onCpu();

interface Case extends SgdOptions {
  readonly clip?: number;
}
const cases: readonly Case[] = [
  { lr: 0.1 },
  { lr: 0.1, momentum: 0.9 },
  { lr: 0.05, momentum: 0.9, weightDecay: 0.2, clip: 1 },
  { lr: 0.05, weightDecay: 0.2, loraPlusRatio: 4 },
  { lr: 0.05, momentum: 0.5, loraPlusRatio: 4, clip: 3 },
];

describe('Sgd: five steps are torch\'s arithmetic', () => {
  test.each(cases)('%o', async ({ clip = 0, ...options }) => {
    const { arena, p } = filledArena(cpu.device);
    using optimizer = new Sgd(arena, options);
    const { lr, momentum = 0, weightDecay = 0, loraPlusRatio = 1 } = options;
    const velocity = momentum === 0 ? undefined : new Float64Array(total);
    for (let step = 1; step <= 5; step++) {
      const g = gradientOf(step);
      stepOn(optimizer, g, { clip });
      const scale = clip === 0 ? 1 : Math.min(1, clip / (norm(g) + 1e-6));
      for (const [begin, end, ratio] of [[0, counts.countA, 1], [counts.countA, total, loraPlusRatio]] as const) {
        sgdInplace({ p: p.subarray(begin, end), velocity: velocity?.subarray(begin, end), g: g.subarray(begin, end).map((x) => x * scale), lr: lr * ratio, momentum, weightDecay });
      }
    }
    expect(worst(await arena.parameters.data(), p)).toBeLessThan(2e-6);
    if (velocity) expect(worst(await optimizer.stateTensors()['momentum']!.data(), velocity)).toBeLessThan(2e-6);
    expect(Object.keys(optimizer.stateTensors())).toEqual(velocity ? ['momentum'] : []);
    arena.dispose();
  });
});

describe('Sgd', () => {
  test('a first step that was shut out and taken back leaves a first step to make', async () => {
    const { arena, p } = filledArena(cpu.device);
    using optimizer = new Sgd(arena, { lr: 0.1, momentum: 0.9 });
    const before = await bytesOf(optimizer);
    stepOn(optimizer, gradientOf(1), { loss: NaN });
    expect(Buffer.compare(await bytesOf(optimizer), before)).toBe(0);
    optimizer.steps -= 1;
    stepOn(optimizer, gradientOf(1));
    const g = gradientOf(1);
    expect(worst(await arena.parameters.data(), p.map((x, i) => x - 0.1 * g[i]!))).toBeLessThan(1e-6);
    arena.dispose();
  });

  test('settings out of range are told all at once', () => {
    const { arena } = filledArena(cpu.device);
    const make = () => new Sgd(arena, { lr: NaN, momentum: 1, weightDecay: -1 });
    for (const fault of ['lr', 'momentum', 'weightDecay']) expect(make).toThrow(fault);
    arena.dispose();
  });
});
