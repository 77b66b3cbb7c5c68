import { readFileSync } from 'node:fs';
import path from 'node:path';
import { spread } from '../src/cli/turns.ts';
import type { Bench, BenchContext } from './bench.ts';
import { withRandomModel } from './random-model.ts';
import { chosenModels, type ModelShape } from './shapes.ts';
import { digits, type Row } from './table.ts';
import { opFlops, parseTrace, stepsOf, type TracedOp } from './trace.ts';
import { ourTrainer, usualTraining } from './trainers.ts';

/** Where the time of a training step goes, by op, from LOWRANK_TRACE; median over the steps after the first. */
export const profile: Bench = {
  about: 'where the time of a training step goes, by op (--all: by op and shape); --shape tiny, smollm or gpt2',
  usual: false,
  async run(context) {
    const { options } = context;
    const tables: Record<string, Row[]> = {};
    for (const [, shape] of chosenModels('profile', options.shape, ['smollm'])) {
      const peaks = [await peakNow(context)];
      const steps = await tracedSteps(shape, context);
      peaks.push(await peakNow(context));
      const peak = peaks.every((value) => value !== null) ? spread(peaks.map(Number)).low : null;
      const { rank, batch, tokens } = usualTraining;
      const title = `${shape.name}, r${rank} on all linears, ${batch}×${tokens} tokens${options.precision === 'medium' ? ', medium' : ''}`;
      tables[title] = profileRows(steps, ({ name }) => name, peak);
      if (options.all) tables[`${title}, by shape`] = profileRows(steps, ({ name, shapes }) => `${name} ${shapes}`, peak);
    }
    return { tables };
  },
};

async function peakNow({ peak, device }: BenchContext): Promise<number | null> {
  return peak === null ? null : peak.rate(device.info.matmulPrecision === 'medium' ? 'bf16' : 'f32', device.info.threads);
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

/** One row per key, largest first, then what passed between ops and the whole. Times are medians over steps. */
export function profileRows(steps: readonly (readonly TracedOp[])[], key: (op: TracedOp) => string, peak: number | null): Row[] {
  const middle = (of: (step: readonly TracedOp[]) => number): number => spread(steps.map(of)).median;
  const span = middle((step) => (step.at(-1)?.end ?? 0) - (step[0]?.begin ?? 0));
  const keys = [...new Set(steps.flat().map(key))];
  const rows = keys.map((name): Row & { readonly ms: number } => {
    const own = (step: readonly TracedOp[]): readonly TracedOp[] => step.filter((op) => key(op) === name);
    const ms = middle((step) => own(step).reduce((sum, op) => sum + op.end - op.begin, 0));
    const flops = own(steps[0] ?? []).reduce((sum, op) => sum + opFlops(op, usualTraining), 0);
    const rate = flops === 0 ? null : flops / ms / 1e6;
    return { op: name, calls: own(steps[0] ?? []).length, ms: Number(ms.toFixed(2)), share: digits(ms / span, 3), 'GFLOP/s': digits(rate, 0), 'of peak': peak === null || rate === null ? null : digits(rate / peak, 2) };
  });
  rows.sort((a, b) => b.ms - a.ms);
  const idle = span - rows.reduce((sum, { ms }) => sum + ms, 0);
  return [...rows, { op: 'between ops', ms: digits(idle, 2), share: digits(idle / span, 3) }, { op: 'step', ms: digits(span, 2), share: 1, 'peak GFLOP/s': digits(peak, 0) }];
}
