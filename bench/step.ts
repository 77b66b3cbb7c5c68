import { existsSync, readFileSync } from 'node:fs';
import { type Party, ratioSpread, spread, takeTurns } from '../src/cli/turns.ts';
import type { Bench, BenchContext } from './bench.ts';
import { peakParty } from './peak.ts';
import { phase } from './phase.ts';
import { withRandomModel } from './random-model.ts';
import { chosenModels, type ModelShape } from './shapes.ts';
import { digits, renderTable, type Row, withQuartiles } from './table.ts';
import { checkLosses, type MemoryAnswer, ourTrainer, peftTrainer, type StepAnswer, type Trainer, type Training, usualTraining } from './trainers.ts';
import { timer } from './time-left.ts';

/** Training steps (r16 on all linears, bf16 base) beside PEFT in turns: tokens/s, peak memory, the first losses compared. */
export const step: Bench = {
  about: 'a training step beside PEFT f32, bf16 where the processor has products in it (--all: both, and f16): tokens/s and peak memory; --shape tiny, smollm, gpt2; on a GPU llama1b, llama8b',
  usual: true,
  anyDevice: true,
  async run(context) {
    const { options, device, peers } = context;
    const time = timer('step', options.seconds);
    const tables: Record<string, Row[]> = {};
    const usual = device.kind === 'cusim' ? ['micro'] : device.kind === 'cuda' ? ['llama1b'] : options.all ? ['tiny', 'smollm', 'gpt2'] : ['tiny'];
    if (device.kind === 'cpu' && peers !== null && !peerDtypes(options.all, hasBf16Products()).includes('bf16'))
      console.log('step: PEFT in bf16 is left out, this processor has no products in it (--all: it takes minutes a step)');
    for (const [key, shape] of chosenModels('step', options.shape, usual)) {
      const training = trainingOf(key);
      const title = `${shape.name}, r${training.rank} on all linears, ${training.batch}×${training.tokens} tokens`;
      await withRandomModel(shape, async (folder) => {
        for (const trainers of groupsOf(context)) {
          const whole = trainers.length === groupsOf(context).flat().length ? title : `${title}: ${trainers.map(({ who }) => who).join(' beside ')}`;
          if (!time.allows(whole)) continue;
          const rows = (tables[whole] = await measure({ shape, training, folder, trainers }, context));
          if (device.kind !== 'cpu') console.log(renderTable(rows)); // should time run out on the next
        }
      });
    }
    return { tables };
  },
};

/** On what a shape is trained: a GPU's have enough tokens to fill one, and leave room for PEFT's activations beside. */
export function trainingOf(key: string): Training {
  if (key === 'micro') return { rank: 4, batch: 2, tokens: 8 };
  if (key === 'llama8b') return { rank: 16, batch: 2, tokens: 2048 };
  return key.startsWith('llama') ? { rank: 16, batch: 4, tokens: 2048 } : usualTraining;
}

/** Who takes turns: on a CPU everybody with everybody, on a GPU two at a time, since more would not fit beside each other. */
function groupsOf({ peers, medium, device, options: { all, precision, peersRun } }: BenchContext): readonly (readonly Trainer[])[] {
  const ours = (checkpointing: 'none' | 'blocks'): Trainer => ourTrainer({ precision, checkpointing, device: device.kind });
  if (device.kind === 'cpu') {
    const own = [ours('none'), ours('blocks'), ...(medium === null ? [] : [ourTrainer({ precision: 'medium' })])];
    if (peers === null) return [own];
    return [[...own, ...peerDtypes(all, hasBf16Products()).map((dtype) => peftTrainer(peers, dtype, 'none'))]];
  }
  if (peers === null) return [[ours('none')], [ours('blocks')]];
  return (['none', 'blocks'] as const).map((checkpointing) => [ours(checkpointing), peftTrainer(peers, 'bf16', checkpointing, peersRun === 'compiled')]);
}

/** PyTorch uses either. */
const hasBf16Products = (): boolean => existsSync('/proc/cpuinfo') && / (avx512_bf16|amx_bf16)\b/.test(readFileSync('/proc/cpuinfo', 'utf8'));

/** Where a processor has no bf16 products, PEFT's step in it takes minutes: only with --all. */
function peerDtypes(all: boolean, bf16Products: boolean): readonly ('f32' | 'bf16' | 'f16')[] {
  if (all) return ['f32', 'bf16', 'f16'];
  return bf16Products ? ['f32', 'bf16'] : ['f32'];
}

/** What one trainer did: milliseconds of each round, the loss of its very first step, its memory at the end. */
interface Trained {
  readonly trainer: Trainer;
  readonly ms: readonly number[];
  readonly firstLoss: number;
  readonly memory: MemoryAnswer;
}

interface Race {
  readonly shape: ModelShape;
  readonly training: Training;
  readonly folder: string;
  readonly trainers: readonly Trainer[];
}

async function measure({ shape, training, folder, trainers }: Race, { device, peak, options, peers }: BenchContext): Promise<Row[]> {
  const running = trainers.map((trainer) => ({ trainer, worker: trainer.start(folder, training), losses: [] as number[] }));
  const failed: Row[] = [];
  try {
    const parties: Record<string, Party> = {};
    for (const { trainer, worker, losses } of running) {
      const party: Party = { once: true, sample: async () => {
        const { ms, loss } = (await worker.ask('step')) as StepAnswer;
        losses.push(loss);
        return ms;
      } };
      try {
        await phase('step', `the first steps of ${trainer.who}`, async () => {
          for (let i = 0; i < (device.kind === 'cuda' ? 3 : 1); i++) await party.sample(1); // loads, finds its memory, compiles
        });
        parties[trainer.who] = party;
      } catch (error) {
        failed.push({ who: trainer.who, note: (error as Error).message.slice(0, 200) }); // out of memory, most likely: the others go on
      }
    }
    if (Object.keys(parties).length === 0) throw new Error(`step: one of them must train (${failed.map(({ who, note }) => `${who}: ${note}`).join('; ')})`);
    if (peak !== null) parties['peak'] = peakParty(peak, device.kind === 'cpu' ? 'f32' : 'bf16', device.info.threads);
    const samples = await takeTurns(parties, { rounds: options.rounds ?? (device.kind === 'cuda' ? 10 : 3), rest: peers === null || device.kind === 'cuda' ? 0 : 15 });
    const trained: Trained[] = [];
    for (const { trainer, worker, losses } of running.filter(({ trainer: { who } }) => who in parties)) {
      trained.push({ trainer, ms: samples[trainer.who] ?? [], firstLoss: losses[0] ?? NaN, memory: (await worker.ask('memory')) as MemoryAnswer });
    }
    checkLosses('step', trained);
    const rows = device.kind === 'cpu' ? rowsOf(trained, training, samples['peak']) : deviceRows(trained, shape, training, samples['peak']);
    return [...rows, ...failed];
  } finally {
    for (const { worker } of running) await worker.stop();
  }
}

const tokensPerSecond = ({ ms }: Trained, { batch, tokens }: Training) => spread(ms.map((each) => (batch * tokens * 1000) / each));

/** Tokens a second, their share of the peak, and what was taken of the GPU's memory. */
function deviceRows(trained: readonly Trained[], shape: ModelShape, training: Training, peaks: readonly number[] | undefined): Row[] {
  const peer = trained.find(({ trainer: { who } }) => who.startsWith('PEFT'));
  const peak = peaks === undefined ? null : spread(peaks).median;
  return trained.map((own) => {
    const speed = tokensPerSecond(own, training);
    return {
      who: own.trainer.who,
      'tokens/s': withQuartiles(speed, 0),
      ...(peer === undefined ? {} : { 'speed over PEFT': withQuartiles(ratioSpread(peer.ms, own.ms), 2) }),
      'model FLOP/s over the peak': peak === null ? null : digits((stepFlops(shape, training.tokens) * speed.median) / peak / 1e9, 3),
      'peak GFLOP/s': digits(peak, 0),
      'GPU MiB at most': digits(own.memory.devicePeakMiB ?? NaN, 0),
      'GPU MiB taken': digits(own.memory.deviceReservedMiB ?? NaN, 0),
      ...(peer === undefined ? {} : { 'memory over PEFT': digits((own.memory.devicePeakMiB ?? NaN) / (peer.memory.devicePeakMiB ?? NaN), 3) }),
      'first loss': digits(own.firstLoss, 4),
    };
  });
}

/**
 * Of a token in a sequence of so many: forward and dx of the frozen products (no dW), the head's too, and causal attention (2 products
 * forward, 5 back). Adapters, and what checkpointing does again, don't count.
 */
function stepFlops({ hidden, layers, heads, kvHeads, intermediate, vocab }: ModelShape, tokens: number): number {
  const keys = (hidden / heads) * kvHeads;
  const weights = layers * (2 * hidden * hidden + 2 * hidden * keys + 3 * hidden * intermediate) + vocab * hidden;
  return 4 * weights + layers * 7 * hidden * (tokens + 1);
}

function rowsOf(trained: readonly Trained[], training: Training, peaks: readonly number[] | undefined): Row[] {
  const peer = trained.find(({ trainer: { who } }) => who === 'PEFT f32');
  const above = ({ memory: { peakMiB, importsMiB } }: Trained): number => peakMiB - importsMiB;
  return trained.map((own) => {
    const speed = tokensPerSecond(own, training);
    return {
      who: own.trainer.who,
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
