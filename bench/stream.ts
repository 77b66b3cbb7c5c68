import { type Party, ratioSpread, spread, takeTurns } from '../src/cli/turns.ts';
import { AdamW, attachLora, type Batch, type Device, loadModel, makeBatch, type Model, openDevice, trainStep } from '../src/index.ts';
import type { Bench, BenchContext } from './bench.ts';
import { withRandomModel } from './random-model.ts';
import { chosenModels, type ModelShape } from './shapes.ts';
import { digits, type Row, withQuartiles } from './table.ts';
import { timer } from './time-left.ts';

/** What one step trains on: so many micro-batches of so many sequences, all of which go through a layer while it is there. */
interface Window {
  readonly micro: number;
  readonly batch: number;
  readonly tokens: number;
}

const share = 0.4; // of the memory that all weights take

/** The same step with all weights on the device and with two fifths of them: what bringing the others costs. */
export const stream: Bench = {
  about: 'a checkpointed training step with all weights on a GPU over one with 40 % of them there; --shape llama1b, llama8b',
  usual: false,
  anyDevice: true,
  async run(context) {
    const { device, options } = context;
    if (device.kind === 'cpu') throw new Error('stream: the device must have memory of its own (found cpu; bench large asks the same of a CPU)');
    const time = timer('stream', options.seconds);
    const tables: Record<string, Row[]> = {};
    for (const [key, shape] of chosenModels('stream', options.shape, [device.kind === 'cusim' ? 'micro' : 'llama1b'])) {
      const window = windowOf(key);
      const title = `${shape.name}, r16 on all linears, ${window.micro} × ${window.batch}×${window.tokens} tokens, checkpointed, activations ${context.activations}`;
      if (time.allows(title)) tables[title] = await withRandomModel(shape, (folder) => measure(context, shape, folder, window));
    }
    return { tables };
  },
};

/** Bringing 16-bit weights over 55 GB/s hides under the step from 9,600 tokens on (790 TFLOP/s, 2 loads for 3 products). */
function windowOf(key: string): Window {
  return key === 'micro' ? { micro: 2, batch: 1, tokens: 8 } : { micro: 2, batch: 4, tokens: 2048 };
}

interface Trained {
  readonly device: Device;
  readonly model: Model;
  readonly memory: number;
  step(): Promise<number>;
}

async function train(context: BenchContext, folder: string, { micro, batch, tokens }: Window, weightMemory: number | 'all'): Promise<Trained> {
  const device = await openDevice(context.device.kind, { activations: context.device.info.activations, weightMemory });
  const model = await loadModel(folder, { device });
  const memory = device.stats().liveBytes;
  const adapter = attachLora(model, { rank: 16, alpha: 32, targets: 'all-linear', seed: 1 });
  const optimizer = new AdamW(adapter.parameters(), { lr: 1e-4 });
  const sequence = (seed: number): { inputIds: Int32Array; labels: Int32Array } => {
    const inputIds = Int32Array.from({ length: tokens }, (_, i) => (i * (2 * seed + 7) + seed) % model.facts.vocabSize);
    return { inputIds, labels: inputIds };
  };
  const window: Batch[] = Array.from({ length: micro }, (_, m) => makeBatch(Array.from({ length: batch }, (__, row) => sequence(m * batch + row))));
  return { device, model, memory, step: async () => (await trainStep(model, optimizer, window, { checkpointing: 'blocks', layerByLayer: true })).loss };
}

async function measure(context: BenchContext, shape: ModelShape, folder: string, window: Window): Promise<Row[]> {
  const resident = await train(context, folder, window, 'all');
  const greatest = Math.max(...resident.model.linears.map(({ weight, inFeatures }) => 2.2 * weight.rows * inFeatures), 2.2 * shape.vocab * shape.hidden);
  const streamed = await train(context, folder, window, Math.ceil(Math.max(share * resident.memory, greatest)));
  const sides = { 'all weights there': resident, 'weights in turns': streamed };
  try {
    const [wanted, found] = [await resident.step(), await streamed.step()];
    if (!(Math.abs(wanted - found) <= 1e-6 * Math.abs(wanted))) throw new Error(`stream: the first loss must be the same either way (found ${wanted} and ${found})`);
    for (let i = 0; i < 2; i++) for (const { step } of Object.values(sides)) await step(); // finds its memory and its graphs
    const parties = Object.fromEntries(Object.entries(sides).map(([who, side]) => [who, stepParty(side)]));
    const brought: number[] = [];
    const samples = await takeTurns({ ...parties, 'weights in turns': counted(streamed, brought) }, { rounds: context.options.rounds ?? (context.device.kind === 'cuda' ? 7 : 1) });
    const tokens = window.micro * window.batch * window.tokens;
    return Object.entries(sides).map(([who, side]) => rowOf(who, side, { samples, tokens, brought: side === streamed ? brought : [] }));
  } finally {
    for (const { device } of Object.values(sides)) device.close();
  }
}

function stepParty({ step }: Trained): Party {
  return {
    once: true,
    async sample() {
      const start = performance.now();
      await step();
      return performance.now() - start;
    },
  };
}

/** Notes of each step how many bytes of weights were brought. */
function counted(side: Trained, brought: number[]): Party {
  const party = stepParty(side);
  return {
    once: true,
    async sample(repeats) {
      const before = side.device.stats().broughtBytes;
      const ms = await party.sample(repeats);
      brought.push(side.device.stats().broughtBytes - before);
      return ms;
    },
  };
}

interface Measured {
  readonly samples: Readonly<Record<string, readonly number[]>>;
  readonly tokens: number;
  readonly brought: readonly number[];
}

function rowOf(who: string, { device, memory }: Trained, { samples, tokens, brought }: Measured): Row {
  const own = samples[who] ?? [];
  const { median } = spread(own);
  const bytes = brought.length === 0 ? 0 : spread(brought).median;
  const { peakBytes, kernelBytes } = device.stats();
  return {
    who,
    'speed over all there': withQuartiles(ratioSpread(samples['all weights there'] ?? [], own), 3),
    'GB/s brought': digits(bytes / median / 1e6, 1),
    'MB a step': digits(bytes / 1e6, 1),
    'tokens/s': withQuartiles(spread(own.map((ms) => (1000 * tokens) / ms)), 0),
    'MiB of weights': digits(memory / 2 ** 20, 1),
    'GPU MiB at most': digits((peakBytes + kernelBytes) / 2 ** 20, 0),
  };
}
