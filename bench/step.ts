import { type Party, ratioSpread, spread, takeTurns } from '../src/cli/turns.ts';
import type { Bench, BenchContext } from './bench.ts';
import { peakParty } from './peak.ts';
import { withRandomModel } from './random-model.ts';
import { chosenModels, type ModelShape } from './shapes.ts';
import { digits, type Row, withQuartiles } from './table.ts';
import { checkLosses, type MemoryAnswer, ourTrainer, peftTrainer, type StepAnswer, type Trainer, usualTraining } from './trainers.ts';

/** Training steps (r16 on all linears, 4×256 tokens, bf16 base) beside PEFT in turns: tokens/s, peak memory, the first losses compared. */
export const step: Bench = {
  about: 'a training step beside PEFT f32 and bf16 (--all: f16 too): tokens/s and peak memory; --shape tiny, smollm or gpt2',
  usual: true,
  async run(context) {
    const tables: Record<string, Row[]> = {};
    for (const [, shape] of chosenModels('step', context.options.shape, context.options.all ? ['tiny', 'smollm', 'gpt2'] : ['tiny'])) {
      const { rank, batch, tokens } = usualTraining;
      tables[`${shape.name}, r${rank} on all linears, ${batch}×${tokens} tokens`] = await measure(shape, context);
    }
    return { tables };
  },
};

function trainersOf({ peers, medium, options: { all, precision } }: BenchContext): readonly Trainer[] {
  const ours = [ourTrainer({ precision }), ourTrainer({ precision, checkpointing: 'blocks' }), ...(medium === null ? [] : [ourTrainer({ precision: 'medium' })])];
  if (peers === null) return ours;
  return [...ours, ...(all ? (['f32', 'bf16', 'f16'] as const) : (['f32', 'bf16'] as const)).map((dtype) => peftTrainer(peers, dtype, 'none'))];
}

/** What one trainer did: milliseconds of each round, the loss of its very first step, its memory at the end. */
interface Trained {
  readonly ms: readonly number[];
  readonly firstLoss: number;
  readonly memory: MemoryAnswer;
}

async function measure(shape: ModelShape, context: BenchContext): Promise<Row[]> {
  const trainers = trainersOf(context);
  const { device, peak, options, peers } = context;
  return withRandomModel(shape, async (folder) => {
    const workers = trainers.map((trainer) => trainer.start(folder, usualTraining));
    try {
      const losses: number[][] = trainers.map(() => []);
      const parties = trainers.map(({ who }, i): [string, Party] => [who, { once: true, sample: async () => {
        const { ms, loss } = (await workers[i]?.ask('step')) as StepAnswer;
        losses[i]?.push(loss);
        return ms;
      } }]);
      const metered: [string, Party][] = peak === null ? [] : [['peak', peakParty(peak, 'f32', device.info.threads)]];
      for (const [, party] of parties) await party.sample(1); // loads, and finds its memory
      const samples = await takeTurns(Object.fromEntries([...parties, ...metered]), { rounds: options.rounds ?? 3, rest: peers === null ? 0 : 15 });
      const trained: Trained[] = [];
      for (const [i, worker] of workers.entries()) {
        trained.push({ ms: samples[trainers[i]?.who ?? ''] ?? [], firstLoss: losses[i]?.[0] ?? NaN, memory: (await worker.ask('memory')) as MemoryAnswer });
      }
      checkLosses('step', trained.map(({ firstLoss }, i) => ({ trainer: trainers[i] as Trainer, firstLoss })));
      return rowsOf(trainers, trained, samples['peak']);
    } finally {
      for (const worker of workers) await worker.stop();
    }
  });
}

function rowsOf(trainers: readonly Trainer[], trained: readonly Trained[], peaks: readonly number[] | undefined): Row[] {
  const { batch, tokens } = usualTraining;
  const peer = trained[trainers.findIndex(({ who }) => who === 'PEFT f32')];
  const above = ({ memory: { peakMiB, importsMiB } }: Trained): number => peakMiB - importsMiB;
  return trained.map((own, i) => {
    const speed = spread(own.ms.map((ms) => (batch * tokens * 1000) / ms));
    return {
      who: trainers[i]?.who ?? '',
      'tokens/s': withQuartiles(speed, 0),
      ...(peer === undefined ? {} : { 'speed over PEFT f32': withQuartiles(ratioSpread(peer.ms, own.ms), 2) }),
      'peak MiB': Math.round(own.memory.peakMiB),
      'above imports': Math.round(above(own)),
      ...(peer === undefined ? {} : { 'memory over PEFT f32': digits(above(own) / above(peer), 3) }),
      'first loss': digits(own.firstLoss, 4),
      'peak GFLOP/s': peaks === undefined ? null : Math.round(spread(peaks).median),
    };
  });
}
