import { expect, test } from 'vitest';
import { of, opCases } from '../golden/read.ts';
import { adamwInplace } from './adamw.ts';
import { worst } from './finite-difference.ts';
import { sgdInplace } from './sgd.ts';
import { clipCoefficient, gate, sumSquares } from './sum_squares.ts';

/** Runs `step` over the case's gradients and compares the parameters after each with PyTorch's. */
function follow(arrays: Record<string, number[]>, step: (p: Float64Array, g: number[], number: number) => void) {
  const p = Float64Array.from(of(arrays, 'p'));
  const [grads, steps] = [of(arrays, 'grads'), of(arrays, 'steps')];
  for (let i = 0; i * p.length < grads.length; i++) {
    step(p, grads.slice(i * p.length, (i + 1) * p.length), i + 1);
    expect(worst(p, steps.slice(i * p.length, (i + 1) * p.length))).toBeLessThan(1e-12);
  }
}

test.each(opCases('adamw'))('adamw: follows torch.optim.AdamW step by step ($name)', ({ numbers, arrays }) => {
  const value = (key: string) => of(numbers, key);
  const state = { m: new Float64Array(5), v: new Float64Array(5) };
  const settings = { lr: value('lr'), beta1: value('beta1'), beta2: value('beta2'), eps: value('eps'), weightDecay: value('weight_decay') };
  follow(arrays, (p, g, step) => adamwInplace({ p, g, ...state, ...settings, step }));
});

test.each(opCases('sgd'))('sgd: follows torch.optim.SGD step by step ($name)', ({ numbers, arrays }) => {
  const momentum = of(numbers, 'momentum');
  const velocity = momentum ? new Float64Array(5) : undefined;
  const settings = { lr: of(numbers, 'lr'), momentum, weightDecay: of(numbers, 'weight_decay') };
  follow(arrays, (p, g) => sgdInplace({ p, g, velocity, ...settings }));
});

test.each(opCases('clip'))('clipping: norm and clipped gradients are torch\'s ($name)', ({ numbers, arrays }) => {
  const g = of(arrays, 'g');
  const norm = Math.sqrt(sumSquares(g));
  const coefficient = clipCoefficient({ norm, clip: of(numbers, 'clip') });
  expect(worst([norm], [of(numbers, 'norm')])).toBeLessThan(1e-12);
  expect(worst(g.map((v) => v * coefficient), of(arrays, 'clipped'))).toBeLessThan(1e-12);
});

test.each([
  { name: 'no clipping', input: { sumSquares: 100, losses: [1, 2], clip: 0 }, scale: 1 },
  { name: 'a norm below the clip', input: { sumSquares: 100, losses: [1, 2], clip: 20 }, scale: 1 },
  { name: 'a norm above it', input: { sumSquares: 100, losses: [1, 2], clip: 5 }, scale: 5 / (10 + 1e-6) },
  { name: 'a loss that is NaN', input: { sumSquares: 100, losses: [1, NaN], clip: 5 }, scale: null },
  { name: 'a norm that overflowed', input: { sumSquares: Infinity, losses: [1], clip: 0 }, scale: null },
])('gate: $name gives $scale', ({ input, scale }) => {
  expect(gate(input)).toBe(scale);
});
