import { readFileSync } from 'node:fs';
import { expect } from 'vitest';
import { goldenPath } from './golden/read.ts';

interface Training {
  readonly losses: readonly number[];
  readonly gradNorms: readonly number[];
}

interface EmbedGoldens {
  readonly layer: Training;
  readonly mlp: Training;
  readonly serve: { readonly base: string; readonly adapters: Readonly<Record<string, string>>; readonly prompts: readonly number[][]; readonly tokens: Readonly<Record<string, readonly number[][]>> };
}

/** What the examples must come to, by PEFT; see test/golden/embed.py, which holds f32 to within 1e-6 of f64. */
export const embedGoldens = JSON.parse(readFileSync(goldenPath('embed.json'), 'utf8')) as EmbedGoldens;

/** An example prints "loss norm" a line. */
export function expectSteps(output: string, { losses, gradNorms }: Training): void {
  const steps = output.trim().split('\n').map((line) => line.split(' ').map(Number));
  expect(steps.length).toBe(losses.length);
  const furthest = (column: number, wanted: readonly number[]): number => Math.max(...wanted.map((value, i) => Math.abs(value - (steps[i]?.[column] ?? NaN))));
  expect({ loss: furthest(0, losses), gradNorm: furthest(1, gradNorms) }).toEqual({ loss: expect.closeTo(0, 5), gradNorm: expect.closeTo(0, 5) });
}
