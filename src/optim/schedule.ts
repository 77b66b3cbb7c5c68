import { throwFaults } from '../error.ts';

/** How the learning rate goes on after the warm-up. */
export type ScheduleKind = 'constant' | 'linear' | 'cosine';

export const scheduleKinds: readonly ScheduleKind[] = ['constant', 'linear', 'cosine'];

/** How long a schedule is, and how high. */
export interface ScheduleOptions {
  /** The highest rate, reached at the end of the warm-up. */
  lr: number;
  /** Steps of linear rise from 0; 0. */
  warmup?: number;
  /** Optimizer steps of the whole run, warm-up included. `'constant'` doesn't need it. */
  steps: number;
}

/** What is left of the rate after the warm-up, by progress from 0 to 1 and beyond. Formulas: transformers/optimization.py. */
const shapes: Readonly<Record<ScheduleKind, (done: number, left: number, span: number) => number>> = {
  constant: () => 1,
  linear: (_, left, span) => Math.max(0, left / span),
  cosine: (done, _, span) => Math.max(0, 0.5 * (1 + Math.cos(Math.PI * 0.5 * 2 * (done / span)))),
};

/**
 * The learning rate of each optimizer step, equal to transformers' `get_{constant,linear,cosine}_schedule_with_warmup`.
 * Steps are counted from 0: the first step of a run uses `rate(0)`, which is 0 if there is a warm-up.
 *
 * @throws `ERR_ARGUMENT` with everything that is out of range.
 * @example
 * ```ts
 * const rate = schedule('linear', { lr: 2e-4, warmup: 10, steps: 100 });
 * rate(0); // 0
 * rate(10); // 2e-4
 * rate(100); // 0
 * ```
 */
export function schedule(kind: ScheduleKind, { lr, warmup = 0, steps }: ScheduleOptions): (step: number) => number {
  const faults: string[] = [];
  if (!scheduleKinds.includes(kind)) faults.push(`kind must be one of ${scheduleKinds.join(', ')} (it is ${String(kind)})`);
  if (!(Number.isFinite(lr) && lr >= 0)) faults.push(`lr must be a number of at least 0 (it is ${lr})`);
  if (!(Number.isSafeInteger(warmup) && warmup >= 0)) faults.push(`warmup must be a whole number of steps (it is ${warmup})`);
  if (!(Number.isSafeInteger(steps) && steps >= 0) && kind !== 'constant') faults.push(`steps must be a whole number (it is ${steps})`);
  throwFaults('ERR_ARGUMENT', 'schedule', faults);
  const span = Math.max(1, steps - warmup);
  const shape = shapes[kind];
  return (step) => lr * (step < warmup ? step / warmup : shape(step - warmup, steps - step, span));
}
