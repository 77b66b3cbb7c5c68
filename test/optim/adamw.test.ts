import { describe, expect, test } from 'vitest';
import { ParameterArena } from '../../src/lora/arena.ts';
import { AdamW, type AdamWOptions } from '../../src/optim/adamw.ts';
import { onCpu } from '../on-cpu.ts';
import { adamwInplace } from '../reference/adamw.ts';
import { worst } from '../reference/finite-difference.ts';
import { bytesOf, counts, filledArena, gradientOf, norm, stepOn, total } from './fixture.ts';

const cpu = onCpu();

interface Case extends AdamWOptions {
  readonly clip?: number;
}
const cases: readonly Case[] = [
  { lr: 0.01 },
  { lr: 0.01, weightDecay: 0 },
  { lr: 0.02, betas: [0.8, 0.95], eps: 1e-3, weightDecay: 0.1 },
  { lr: 0.01, clip: 1 },
  { lr: 0.01, clip: 1e6 },
  { lr: 0.005, loraPlusRatio: 16, weightDecay: 0.3, clip: 2 },
  { lr: 0.01, loraPlusRatio: 0 },
];

describe('AdamW: five steps are torch\'s arithmetic', () => {
  test.each(cases)('%o', async ({ clip = 0, ...options }) => {
    const { arena, p } = filledArena(cpu.device);
    using optimizer = new AdamW(arena, options);
    const { lr, betas: [beta1, beta2] = [0.9, 0.999], eps = 1e-8, weightDecay = 0.01, loraPlusRatio = 1 } = options;
    const [m, v] = [new Float64Array(total), new Float64Array(total)];
    for (let step = 1; step <= 5; step++) {
      const g = gradientOf(step);
      stepOn(optimizer, g, { clip });
      const scale = clip === 0 ? 1 : Math.min(1, clip / (norm(g) + 1e-6));
      for (const [begin, end, ratio] of [[0, counts.countA, 1], [counts.countA, total, loraPlusRatio]] as const) {
        const part = (values: Float64Array): Float64Array => values.subarray(begin, end);
        adamwInplace({ p: part(p), m: part(m), v: part(v), g: part(g).map((x) => x * scale), lr: lr * ratio, beta1, beta2, eps, weightDecay, step });
      }
      expect((await optimizer.sumSquares.data())[0]).toBeCloseTo(norm(g) ** 2, 3);
    }
    expect(worst(await arena.parameters.data(), p)).toBeLessThan(2e-6);
    expect(worst(await optimizer.stateTensors().m.data(), m)).toBeLessThan(2e-6);
    expect(worst(await optimizer.stateTensors().v.data(), v)).toBeLessThan(2e-6);
    expect(optimizer.steps).toBe(5);
    arena.dispose();
  });
});

describe('AdamW', () => {
  test.each([
    ['a loss that is NaN', { loss: NaN }, 1],
    ['a loss that is infinite', { loss: Infinity }, 1],
    ['a gradient that is NaN', {}, NaN],
    ['a gradient whose square overflows', {}, 1e30],
  ])('%s changes neither parameters nor moments, bit for bit', async (_, options, factor) => {
    const { arena } = filledArena(cpu.device);
    using optimizer = new AdamW(arena, { lr: 0.1 });
    stepOn(optimizer, gradientOf(1));
    const before = await bytesOf(optimizer);
    stepOn(optimizer, gradientOf(2).map((x, i) => (i === 40 ? x * factor : x)), options);
    expect(Buffer.compare(await bytesOf(optimizer), before)).toBe(0);
    stepOn(optimizer, gradientOf(2)); // the check can fail: this one does change them
    expect(Buffer.compare(await bytesOf(optimizer), before)).not.toBe(0);
    arena.dispose();
  });

  test('a rate given to one step is for that step only', async () => {
    const { arena, p } = filledArena(cpu.device);
    using optimizer = new AdamW(arena, { lr: 0.1, weightDecay: 0 });
    stepOn(optimizer, gradientOf(1), { lr: 0 });
    expect(worst(await arena.parameters.data(), p)).toBe(0);
    stepOn(optimizer, gradientOf(2));
    expect(worst(await arena.parameters.data(), p)).toBeGreaterThan(0.01);
    arena.dispose();
  });

  test('state and steps carried over to another optimizer go on bit for bit', async () => {
    const [one, two] = [filledArena(cpu.device).arena, filledArena(cpu.device).arena];
    using first = new AdamW(one, { lr: 0.01 });
    using second = new AdamW(two, { lr: 0.01 });
    for (const step of [1, 2]) stepOn(first, gradientOf(step));
    two.parameters.upload(await one.parameters.data());
    for (const name of ['m', 'v'] as const) second.stateTensors()[name].upload(await first.stateTensors()[name].data());
    second.steps = first.steps;
    for (const optimizer of [first, second]) stepOn(optimizer, gradientOf(3));
    expect(Buffer.compare(await bytesOf(first), await bytesOf(second))).toBe(0);
    [one, two].forEach((arena) => arena.dispose());
  });

  test('settings out of range are told all at once', () => {
    const arena = new ParameterArena(cpu.device, { ...counts, trainable: false });
    const make = () => new AdamW(arena, { lr: -1, betas: [1, NaN], eps: -1, weightDecay: Infinity, loraPlusRatio: -2 });
    expect(make).toThrow(expect.objectContaining({ code: 'ERR_ARGUMENT' }));
    for (const fault of ['trainable', 'lr ', 'betas[0]', 'betas[1]', 'eps', 'weightDecay', 'loraPlusRatio']) expect(make).toThrow(fault);
    arena.dispose();
  });

  test('a step with a wrong rate or clip queues nothing', () => {
    const { arena } = filledArena(cpu.device);
    using optimizer = new AdamW(arena, { lr: 0.1 });
    const { ops } = cpu.device.stats();
    expect(() => optimizer.step({ losses: arena.parameters }, NaN)).toThrow('lr');
    expect(() => optimizer.step({ losses: arena.parameters, clip: -1 })).toThrow('clip');
    expect([optimizer.steps, cpu.device.stats().ops]).toEqual([0, ops]);
    arena.dispose();
  });
});
