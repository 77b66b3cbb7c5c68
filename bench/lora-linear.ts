import { flopFloor, frozenFlops, layerName, makeLayerWork, type LayerShape, type LayerWork } from '../src/cli/layer-work.ts';
import { deviceParty, type Party, ratioSpread, spread, takeTurns } from '../src/cli/turns.ts';
import type { Device, MatmulPrecision } from '../src/device.ts';
import type { Bench, BenchContext } from './bench.ts';
import { peakParty } from './peak.ts';
import { phase } from './phase.ts';
import { startPeerWorker, type PeerWorker } from './peers.ts';
import { digits, renderTable, type Row, withQuartiles } from './table.ts';
import { timer } from './time-left.ts';

const cpuShapes: readonly LayerShape[] = [
  { T: 256, K: 768, N: 768, r: 8 },
  { T: 512, K: 2048, N: 2048, r: 16 },
  { T: 512, K: 4096, N: 4096, r: 16 },
  { T: 512, K: 2048, N: 8192, r: 16 },
  { T: 128, K: 4096, N: 4096, r: 64 },
  { T: 2048, K: 1024, N: 1024, r: 8 },
];

// The projections of Llama-3-8B. The first five are the short set: each matrix, then other T and r.
const [square, up, down] = [{ K: 4096, N: 4096 }, { K: 4096, N: 14336 }, { K: 14336, N: 4096 }];
const gpuShort: readonly LayerShape[] = [
  { T: 8192, r: 16, ...square }, { T: 8192, r: 16, ...up }, { T: 8192, r: 16, ...down }, { T: 4096, r: 16, ...square }, { T: 8192, r: 64, ...square },
];
const gpuAll = [8192, 4096, 16384].flatMap((T) => [16, 64].flatMap((r) => [square, up, down].map((matrix): LayerShape => ({ T, r, ...matrix }))));

const key = ({ T, K, N, r }: LayerShape): string => `${T}x${K}x${N}x${r}`;

/** The shape that `TxKxNxr` names, or those of the table: all, or a few. */
function chosenShapes({ device, options: { shape, all } }: BenchContext): readonly LayerShape[] {
  if (shape !== null) return [namedShape(shape)];
  if (device.kind === 'cusim') return [{ T: 17, K: 24, N: 40, r: 4 }];
  if (device.kind === 'cpu') return all ? cpuShapes : cpuShapes.slice(0, 2);
  return all ? gpuAll : gpuShort;
}

function namedShape(shape: string): LayerShape {
  const [T, K, N, r, more] = shape.split('x').map(Number);
  if (!T || !K || !N || !r || more !== undefined) throw new Error(`lora-linear: --shape must be TxKxNxr, such as ${[...cpuShapes, ...gpuShort].map(key).join(', ')} (found ${shape})`);
  return { T, K, N, r };
}

/** A LoRA linear forward and backward (dx, dA, dB) over the frozen layer alone (y, dx), beside PEFT's. */
export const loraLinear: Bench = {
  about: 'a LoRA linear, forward and backward, over its frozen layer and beside PEFT; --shape TxKxNxr, --dtype of W0',
  usual: true,
  anyDevice: true,
  async run(context) {
    const { options, peers, medium, device, activations } = context;
    const worker = peers === null ? null : startPeerWorker(peers);
    try {
      const rows: Samples[] = [];
      const time = timer('lora-linear', options.seconds);
      const { dtype, precision } = options;
      for (const shape of chosenShapes(context)) {
        if (!time.allows(layerName(shape))) continue;
        const row = await measure(context, shape, worker);
        rows.push(row);
        // Should time run out on the next.
        if (device.kind !== 'cpu') console.log(renderTable([{ ...ourRow(row, '', precision), ...(worker === null ? {} : peerRow(row, 'p=0')) }]));
      }
      const tables: Record<string, Row[]> = { [`ours, W0 ${dtype}, ${device.kind === 'cpu' ? precision : `activations ${activations}`}`]: rows.map((row) => ourRow(row, '', precision)) };
      if (medium !== null) tables[`ours, W0 ${dtype}, medium`] = rows.map((row) => ourRow(row, 'medium ', 'medium'));
      for (const work of worker === null ? [] : (['p=0', 'p=0.1'] as const)) tables[`beside PEFT ${theirType(context)}, ${work}`] = rows.map((row) => peerRow(row, work));
      return { tables };
    } finally {
      await worker?.stop();
    }
  },
};

/** What PEFT computes in when it is at its best: f32 on a CPU, bf16 on a GPU. */
const theirType = ({ peers }: BenchContext): 'f32' | 'bf16' => (peers?.gpu ? 'bf16' : 'f32');

const works = ['frozen', 'p=0', 'p=0.1'] as const;

/** Milliseconds of each work (`p=0`), ours in medium (`medium p=0`) and theirs (`PEFT p=0`, `PEFT bf16 p=0`), and the peaks. */
interface Samples {
  readonly shape: LayerShape;
  readonly of: Readonly<Record<string, readonly number[]>>;
}

async function measure(context: BenchContext, shape: LayerShape, worker: PeerWorker | null): Promise<Samples> {
  const { device, medium, peak, options, activations } = context;
  const layers: LayerWork[] = [];
  const parties: Record<string, Party> = {};
  const addOurs = async (on: Device, prefix: string): Promise<void> => {
    const layer = await phase('lora-linear', `making ${layerName(shape)}`, () => makeLayerWork(on, shape, { stored: options.dtype, activations }));
    layers.push(layer);
    await phase('lora-linear', `checking ${layerName(shape)}`, () => layer.check());
    for (const work of works) parties[prefix + work] = deviceParty(on, work === 'frozen' ? layer.frozen : layer.lora(Number(work.slice(2))));
  };
  try {
    await addOurs(device, '');
    if (medium !== null) await addOurs(medium, 'medium ');
    if (peak !== null) for (const kind of device.kind === 'cpu' ? (['f32', 'bf16'] as const) : (['bf16'] as const)) parties[`peak ${kind}`] = peakParty(peak, kind, device.info.threads);
    if (worker !== null) {
      const { T, K, N, r } = shape;
      const first = theirType(context);
      const asked = { T, K, N, r, dtypes: options.all && first === 'f32' ? ['f32', 'bf16'] : [first], device: first === 'f32' ? 'cpu' : 'cuda' };
      const theirs = await phase('lora-linear', "making PEFT's layer", () => worker.setUp('lora_linear', asked));
      for (const work of theirs.facts['works'] as string[]) parties[`PEFT ${work}`] = theirs.party(work);
    }
    return { shape, of: await takeTurns(parties, { rounds: options.rounds ?? (device.kind === 'cpu' ? 9 : 7), rest: worker === null || device.kind !== 'cpu' ? 0 : 15 }) };
  } finally {
    for (const layer of layers) layer.dispose();
  }
}

function ourRow({ shape, of }: Samples, prefix: '' | 'medium ', precision: MatmulPrecision): Row {
  const frozen = of[`${prefix}frozen`] ?? [];
  const rate = frozenFlops(shape) / spread(frozen).median / 1e6;
  const peaks = precision === 'medium' ? of['peak bf16'] : (of['peak f32'] ?? of['peak bf16']);
  const peak = peaks === undefined ? null : spread(peaks).median;
  const over = (work: string): string => withQuartiles(ratioSpread(of[prefix + work] ?? [], frozen), 3);
  return {
    'T×K→N r': layerName(shape),
    'frozen ms': withQuartiles(spread(frozen), 2),
    'GFLOP/s': Math.round(rate),
    'of peak': peak === null ? null : digits(rate / peak, 3),
    'peak GFLOP/s': digits(peak, 0),
    'p=0 / frozen': over('p=0'),
    'p=0.1 / frozen': over('p=0.1'),
    'FLOP floor': digits(flopFloor(shape), 3),
  };
}

function peerRow({ shape, of }: Samples, work: 'p=0' | 'p=0.1'): Row {
  const theirs = of[`PEFT ${work}`] ?? [];
  const ms = (name: string): number | null => digits(spread(of[name] ?? []).median, 2);
  const over = (name: string): string | null => (of[name] === undefined ? null : withQuartiles(ratioSpread(of[name], theirs), 3));
  return {
    'T×K→N r': layerName(shape),
    'PEFT ms': ms(`PEFT ${work}`),
    'ours ms': ms(work),
    'ours / PEFT': over(work),
    ...(of[`medium ${work}`] === undefined ? {} : { 'medium ms': ms(`medium ${work}`), 'medium / PEFT': over(`medium ${work}`) }),
    ...(of[`PEFT bf16 ${work}`] === undefined ? {} : { 'PEFT bf16 / PEFT': over(`PEFT bf16 ${work}`) }),
    'PEFT / nn.Linear': digits(ratioSpread(theirs, of['PEFT frozen'] ?? []).median, 3),
    'frozen, ours / nn.Linear': digits(ratioSpread(of['frozen'] ?? [], of['PEFT frozen'] ?? []).median, 3),
  };
}
