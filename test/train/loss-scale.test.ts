import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { describe, expect, test } from 'vitest';
import type { LossScale } from '../../src/optim/loss-scale.ts';
import type { TrainEvent } from '../../src/train/run-events.ts';
import { Trainer } from '../../src/train/trainer.ts';
import type { TrainerOptions } from '../../src/train/trainer-options.ts';
import { onCpu } from '../on-cpu.ts';
import { stepsOf, waveDataset, withWorkplace } from './training.ts';

const cpu = onCpu();
const dataset = waveDataset(13);

interface Made {
  readonly events: readonly TrainEvent[];
  readonly lossScale: LossScale | null;
  readonly parameters: Buffer;
}

/** A run whose losses are scaled, as f16 activations want it; the arithmetic here is f32, so a power of two must change nothing. */
async function run(lossScale: LossScale | null, options: Partial<TrainerOptions> = {}, until = Infinity): Promise<Made> {
  return withWorkplace(cpu.device, {}, async (workplace) => {
    const { optimizer, adapter } = workplace;
    optimizer.lossScale = lossScale;
    const controller = new AbortController();
    const events: TrainEvent[] = [];
    for await (const event of new Trainer({ ...workplace, dataset, batchSize: 2, clip: 1, steps: 12, signal: controller.signal, ...options })) {
      events.push(event);
      if (event.type === 'step' && event.step >= until) controller.abort();
    }
    return { events, lossScale: optimizer.lossScale, parameters: Buffer.from(await adapter.parameters().parameters.bytes()) };
  });
}

const overflows = ({ events }: Made): number => events.filter((event) => event.type === 'skip' && event.reason === 'overflow').length;

describe('a scaled loss', () => {
  test('leaves steps, gradient norms and parameters as they are', async () => {
    const [plain, scaled] = [await run(null, { steps: 4 }), await run({ scale: 2 ** 16, goodSteps: 0 }, { steps: 4 })];
    expect(stepsOf(scaled.events).map(({ loss, gradNorm }) => [loss, gradNorm])).toEqual(stepsOf(plain.events).map(({ loss, gradNorm }) => [loss, gradNorm]));
    expect(scaled.parameters.equals(plain.parameters)).toBe(true);
    expect(scaled.lossScale).toEqual({ scale: 2 ** 16, goodSteps: 4 });
  });

  test('is halved at each overflow until there is none, without a change of parameters and without a question of patience', async () => {
    const made = await run({ scale: 2 ** 72, goodSteps: 7 }, { patience: 1 });
    const found = overflows(made);
    expect(found).toBeGreaterThan(2);
    expect(found).toBeLessThan(12);
    expect(made.lossScale).toEqual({ scale: 2 ** (72 - found), goodSteps: 12 - found });
  });

  test('goes on where it was after a resume', async () => {
    const folder = mkdtempSync(path.join(tmpdir(), 'lowrank-scale-'));
    try {
      const start = { scale: 2 ** 72, goodSteps: 0 };
      const out = path.join(folder, 'run');
      const whole = await run(start);
      const first = await run(start, { out }, 3);
      const second = await run({ scale: 2 ** 16, goodSteps: 0 }, { out, resume: true });
      expect(second.lossScale).toEqual(whole.lossScale);
      expect(overflows(first) + overflows(second)).toBe(overflows(whole));
      expect(second.parameters.equals(whole.parameters)).toBe(true);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});
