import { readFileSync } from 'node:fs';
import path from 'node:path';
import { spread } from '../src/cli/turns.ts';
import type { Bench, BenchContext } from './bench.ts';
import { withRandomModel } from './random-model.ts';
import { chosenModels, type ModelShape } from './shapes.ts';
import { digits, type Row } from './table.ts';
import { opFlops, parseTrace, stepsOf, type TracedOp } from './trace.ts';
import { ourTrainer, usualTraining } from './trainers.ts';

/** Where the time of a training step goes, by op, from LOWRANK_TRACE: the step of median length of those after the first. */
export const profile: Bench = {
  about: 'where the time of a training step goes, by op (--all: by op and shape); --shape tiny, smollm or gpt2',
  usual: false,
  async run(context) {
    const { options } = context;
    const tables: Record<string, Row[]> = {};
    for (const [, shape] of chosenModels('profile', options.shape, ['smollm'])) {
      const before = await peaksNow(context);
      const steps = await tracedSteps(shape, context);
      const peaks = middleOf(before, await peaksNow(context));
      const { rank, batch, tokens } = usualTraining;
      const title = `${shape.name}, r${rank} on all linears, ${batch}×${tokens} tokens${options.precision === 'medium' ? ', medium' : ''}`;
      tables[title] = profileRows(steps, ({ name }) => name, peaks);
      if (options.all) tables[`${title}, by shape`] = profileRows(steps, ({ name, shapes }) => `${name} ${shapes}`, peaks);
    }
    return { tables };
  },
};

/** GFLOP/s: of the arithmetic in which frozen weights are multiplied, and of the f32 of all other products. */
export interface Peaks {
  readonly frozen: number | null;
  readonly f32: number | null;
}

/** Several, since one may find both threads on one core. */
async function peaksNow({ peak, device }: BenchContext): Promise<Peaks[]> {
  const found: Peaks[] = [];
  for (let i = 0; peak !== null && i < 5; i++) {
    const f32 = await peak.rate('f32', device.info.threads);
    found.push({ f32, frozen: device.info.matmulPrecision === 'medium' ? await peak.rate('bf16', device.info.threads) : f32 });
  }
  return found;
}

function middleOf(...found: readonly (readonly Peaks[])[]): Peaks {
  const middle = (kind: keyof Peaks): number | null => digits(spread(found.flat().map((peaks) => peaks[kind] ?? NaN)).median, 1);
  return { frozen: middle('frozen'), f32: middle('f32') };
}

async function tracedSteps(shape: ModelShape, { options }: BenchContext): Promise<readonly (readonly TracedOp[])[]> {
  const rounds = options.rounds ?? 5;
  return withRandomModel(shape, async (folder) => {
    const file = path.join(folder, 'trace.json');
    const worker = ourTrainer({ precision: options.precision, env: { LOWRANK_TRACE: file } }).start(folder, usualTraining);
    try {
      for (let i = 0; i <= rounds; i++) await worker.ask('step');
    } finally {
      await worker.stop(); // closes the device, and so the trace
    }
    const steps = stepsOf(parseTrace(readFileSync(file, 'utf8')));
    if (steps.length !== rounds + 1) throw new Error(`profile: the trace must hold ${rounds + 1} steps (found ${steps.length})`);
    return steps.slice(1);
  });
}

const spanOf = (step: readonly TracedOp[]): number => (step.at(-1)?.end ?? 0) - (step[0]?.begin ?? 0);

/** Of the step of median length: one row per key, largest first, then what passed between ops, and the whole. They add up. */
export function profileRows(steps: readonly (readonly TracedOp[])[], key: (op: TracedOp) => string, peaks: Peaks): Row[] {
  const step = [...steps].sort((a, b) => spanOf(a) - spanOf(b))[Math.floor(steps.length / 2)] ?? [];
  const span = spanOf(step);
  const timed = [...new Set(step.map(key))].map((op) => {
    const own = step.filter((each) => key(each) === op);
    return { op, own, ms: own.reduce((sum, { begin, end }) => sum + end - begin, 0) };
  });
  timed.sort((a, b) => b.ms - a.ms);
  const rows = timed.map(({ op, own, ms }): Row => {
    const flops = own.reduce((sum, each) => sum + opFlops(each, usualTraining), 0);
    const rate = flops === 0 ? null : flops / ms / 1e6;
    const peak = own[0]?.name.startsWith('attention') ? peaks.f32 : peaks.frozen;
    return { op, calls: own.length, ms: digits(ms, 2), share: digits(ms / span, 3), 'GFLOP/s': digits(rate, 0), 'of peak': peak === null || rate === null ? null : digits(rate / peak, 2) };
  });
  const idle = span - timed.reduce((sum, { ms }) => sum + ms, 0);
  return [...rows, { op: 'between ops', ms: digits(idle, 2), share: digits(idle / span, 3) }, { op: 'step', ms: digits(span, 2), share: 1, 'peak GFLOP/s': digits(peaks.frozen, 0) }];
}
