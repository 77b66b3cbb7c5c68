import type { Bench, BenchContext } from './bench.ts';
import { withRandomModel } from './random-model.ts';
import { chosenModels } from './shapes.ts';
import { digits, type Row } from './table.ts';
import { checkLosses, type MemoryAnswer, ourTrainer, peftTrainer, type StepAnswer, type Trainer, usualTraining } from './trainers.ts';

/** Peak resident memory of loading and of training steps, without and with checkpointing, and what is kept for the backward pass. */
export const memory: Bench = {
  about: 'peak resident memory of load, step and checkpointed step beside PEFT; --shape tiny, smollm or gpt2',
  usual: false,
  async run(context) {
    const tables: Record<string, Row[]> = {};
    for (const [, shape] of chosenModels('memory', context.options.shape, context.options.all ? ['tiny', 'smollm', 'gpt2'] : ['smollm'])) {
      const { rank, batch, tokens } = usualTraining;
      const runs = await withRandomModel(shape, async (folder) => {
        const done: Run[] = [];
        for (const trainer of trainersOf(context)) done.push(await runOne(trainer, folder)); // one at a time: no memory but its own
        return done;
      });
      checkLosses('memory', runs);
      tables[`${shape.name}, r${rank} on all linears, ${batch}×${tokens} tokens, MiB above imports`] = runs.map((run) => rowOf(run, runs));
    }
    return { tables };
  },
};

function trainersOf({ peers, options: { precision } }: BenchContext): readonly Trainer[] {
  const both = ['none', 'blocks'] as const;
  const ours = both.map((checkpointing) => ourTrainer({ checkpointing, precision }));
  return peers === null ? ours : [...ours, ...both.flatMap((checkpointing) => [peftTrainer(peers, 'f32', checkpointing), peftTrainer(peers, 'bf16', checkpointing)])];
}

interface Run {
  readonly trainer: Trainer;
  readonly firstLoss: number;
  readonly loaded: MemoryAnswer;
  readonly trained: MemoryAnswer;
}

async function runOne(trainer: Trainer, folder: string): Promise<Run> {
  const worker = trainer.start(folder, usualTraining);
  try {
    const loaded = (await worker.ask('load')) as MemoryAnswer;
    const { loss: firstLoss } = (await worker.ask('step')) as StepAnswer;
    await worker.ask('step'); // moments and gradients exist only now
    return { trainer, firstLoss, loaded, trained: (await worker.ask('memory')) as MemoryAnswer };
  } finally {
    await worker.stop();
  }
}

function rowOf({ trainer, loaded, trained }: Run, all: readonly Run[]): Row {
  const above = (at: MemoryAnswer): number => at.peakMiB - at.importsMiB;
  const peer = all.find((run) => run.trainer.who.startsWith('PEFT f32') && run.trainer.checkpointing === trainer.checkpointing);
  return {
    who: trainer.who,
    'peak of load': Math.round(above(loaded)),
    'peak of steps': Math.round(above(trained)),
    ...(peer === undefined ? {} : { 'steps over PEFT f32 alike': digits(above(trained) / above(peer.trained), 3) }),
    'anonymous, all': Math.round(trained.anonymousMiB),
    'mapped, all': Math.round(trained.fileMiB),
    'kept for backward': trained.savedMiB === undefined ? null : digits(trained.savedMiB, 1),
  };
}
