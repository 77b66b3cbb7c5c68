import { flopFloor, frozenFlops, layerName, makeLayerWork, type LayerShape } from '../src/cli/layer-work.ts';
import { deviceParty, type Party, ratioSpread, spread, takeTurns } from '../src/cli/turns.ts';
import type { Bench, BenchContext } from './bench.ts';
import { peakParty } from './peak.ts';
import { startPeerWorker, type PeerWorker } from './peers.ts';
import { digits, type Row, withQuartiles } from './table.ts';

const shapes: readonly LayerShape[] = [
  { T: 256, K: 768, N: 768, r: 8 },
  { T: 512, K: 2048, N: 2048, r: 16 },
  { T: 512, K: 4096, N: 4096, r: 16 },
  { T: 512, K: 2048, N: 8192, r: 16 },
  { T: 128, K: 4096, N: 4096, r: 64 },
  { T: 2048, K: 1024, N: 1024, r: 8 },
];

const key = ({ T, K, N, r }: LayerShape): string => `${T}x${K}x${N}x${r}`;

/** The shape that `TxKxNxr` names, or those of the table: all six, or the first two. */
function chosenShapes({ options: { shape, all } }: BenchContext): readonly LayerShape[] {
  if (shape === null) return all ? shapes : shapes.slice(0, 2);
  const [T, K, N, r, more] = shape.split('x').map(Number);
  if (!T || !K || !N || !r || more !== undefined) throw new Error(`lora-linear: --shape must be TxKxNxr, such as ${shapes.map(key).join(', ')} (found ${shape})`);
  return [{ T, K, N, r }];
}

/** A LoRA linear forward and backward (dx, dA, dB) over the frozen layer alone (y, dx), beside PEFT's. */
export const loraLinear: Bench = {
  about: 'a LoRA linear, forward and backward, over its frozen layer and beside PEFT; --shape TxKxNxr, --dtype of W0',
  usual: true,
  async run(context) {
    const worker = context.peers === null ? null : startPeerWorker(context.peers);
    try {
      const rows: Samples[] = [];
      for (const shape of chosenShapes(context)) rows.push(await measure(context, shape, worker));
      const ours = Object.entries({ [`ours, W0 ${context.options.dtype}`]: rows.map((row) => ourRow(row)) });
      return { tables: Object.fromEntries(worker === null ? ours : [...ours, ['beside PEFT', rows.map((row) => peerRow(row))]]) };
    } finally {
      await worker?.stop();
    }
  },
};

interface Samples {
  readonly shape: LayerShape;
  readonly of: Readonly<Record<string, readonly number[]>>;
}

async function measure({ device, peak, options }: BenchContext, shape: LayerShape, worker: PeerWorker | null): Promise<Samples> {
  const layer = makeLayerWork(device, shape, options.dtype);
  try {
    await layer.check();
    const parties: Record<string, Party> = {
      frozen: deviceParty(device, layer.frozen),
      'p=0': deviceParty(device, layer.lora(0)),
      'p=0.1': deviceParty(device, layer.lora(0.1)),
      ...(peak === null ? {} : { peak: peakParty(peak, 'f32', device.info.threads) }),
    };
    if (worker !== null) {
      const theirs = await worker.setUp('lora_linear', { ...shape, dtype: 'f32' });
      for (const work of ['frozen', 'p=0', 'p=0.1']) parties[`PEFT ${work}`] = theirs.party(work);
    }
    return { shape, of: await takeTurns(parties, { rounds: options.rounds ?? 9, rest: worker === null ? 0 : 15 }) };
  } finally {
    layer.dispose();
  }
}

function ourRow({ shape, of }: Samples): Row {
  const frozen = of['frozen'] ?? [];
  const rate = frozenFlops(shape) / spread(frozen).median / 1e6;
  const peak = of['peak'] === undefined ? null : spread(of['peak']).median;
  const over = (name: string): string => withQuartiles(ratioSpread(of[name] ?? [], frozen), 3);
  return {
    'T×K→N r': layerName(shape),
    'frozen ms': withQuartiles(spread(frozen), 2),
    'GFLOP/s': Math.round(rate),
    'of peak': peak === null ? null : digits(rate / peak, 3),
    'peak GFLOP/s': peak === null ? null : Math.round(peak),
    'p=0 / frozen': over('p=0'),
    'p=0.1 / frozen': over('p=0.1'),
    'FLOP floor': digits(flopFloor(shape), 3),
  };
}

function peerRow({ shape, of }: Samples): Row {
  const ms = (name: string): number | null => digits(spread(of[name] ?? []).median, 2);
  const ratio = (work: string): string => withQuartiles(ratioSpread(of[work] ?? [], of[`PEFT ${work}`] ?? []), 3);
  return {
    'T×K→N r': layerName(shape),
    'ours p=0 ms': ms('p=0'),
    'PEFT f32 p=0 ms': ms('PEFT p=0'),
    'ours / PEFT p=0': ratio('p=0'),
    'ours p=0.1 ms': ms('p=0.1'),
    'PEFT f32 p=0.1 ms': ms('PEFT p=0.1'),
    'ours / PEFT p=0.1': ratio('p=0.1'),
    'nn.Linear ms': ms('PEFT frozen'),
    'frozen, ours / nn.Linear': ratio('frozen'),
    'PEFT p=0 / nn.Linear': digits(ratioSpread(of['PEFT p=0'] ?? [], of['PEFT frozen'] ?? []).median, 3),
  };
}
