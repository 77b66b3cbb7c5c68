import { type LayerShape, layerName } from '../src/cli/layer-work.ts';
import { noise } from '../src/cli/noise.ts';
import { deviceParty, type Party, ratioSpread, spread, takeTurns } from '../src/cli/turns.ts';
import type { Device } from '../src/device.ts';
import { cast } from '../src/ops/elementwise.ts';
import { loraLinear } from '../src/ops/lora_linear.ts';
import { scope } from '../src/scope.ts';
import type { Bench } from './bench.ts';
import { type LineWorker, startLineWorker } from './line-worker.ts';
import { buildNative } from './peak.ts';
import { digits, type Row } from './table.ts';

/** The last one computes next to nothing: what is left is the call. */
const shapes: readonly LayerShape[] = [
  { T: 1, K: 768, N: 768, r: 8 },
  { T: 512, K: 768, N: 768, r: 8 },
  { T: 1, K: 16, N: 16, r: 1 },
];

/** What it costs to call a kernel from TypeScript instead of C. */
export const boundary: Bench = {
  about: 'a lora_linear call (bf16 W0, forward) through the C ABI and through TypeScript, T=1 and T=512',
  usual: true,
  async run({ device, options }) {
    const built = buildNative('boundary');
    if ('why' in built) console.log(`boundary: C is not measured, bench/native needs cmake, a C++ compiler and Highway (${built.why})`);
    const worker = 'why' in built ? null : startLineWorker({ file: built.file, args: [] });
    try {
      const rows: Row[] = [];
      for (const shape of shapes) rows.push(await measure(device, shape, worker, options.rounds ?? 9));
      return { tables: { [`µs a call, ${device.info.threads} threads`]: rows } };
    } finally {
      await worker?.stop();
    }
  },
};

async function measure(device: Device, shape: LayerShape, worker: LineWorker | null, rounds: number): Promise<Row> {
  const layer = makeLayer(device, shape);
  try {
    const parties: Record<string, Party> = { queued: deviceParty(device, layer.call), waited: { sample: (repeats) => timeWaiting(device, layer.call, repeats) } };
    if (worker !== null) parties['C'] = cParty(worker, shape, device.info.threads);
    const samples = await takeTurns(parties, { rounds });
    const micro = (name: string): number | null => (samples[name] === undefined ? null : digits(spread(samples[name]).median * 1000, 1));
    const { C, queued = [] } = samples;
    return {
      layer: layerName(shape),
      'through C': micro('C'),
      'through TypeScript': micro('queued'),
      ratio: C === undefined ? null : digits(ratioSpread(queued, C).median, 2),
      'TypeScript, each awaited': micro('waited'),
    };
  } finally {
    layer.dispose();
  }
}

function cParty(worker: LineWorker, { T, K, N, r }: LayerShape, threads: number): Party {
  return { sample: async (repeats) => ((await worker.ask([T, K, N, r, threads, repeats].join(' '))) as { ms: number }).ms };
}

async function timeWaiting(device: Device, call: () => void, repeats: number): Promise<number> {
  const start = performance.now();
  for (let i = 0; i < repeats; i++) {
    call();
    await device.fence();
  }
  return (performance.now() - start) / repeats;
}

function makeLayer(device: Device, { T, K, N, r }: LayerShape): { call(): void; dispose(): void } {
  const wide = device.tensor(noise(N * K, 2), [N, K]);
  const stored = scope(() => cast(wide, 'bf16'));
  wide.dispose();
  const weight = device.weight([stored]);
  const [x, a, b] = [device.tensor(noise(T * K, 1), [T, K]), device.tensor(noise(r * K, 3), [r, K]), device.tensor(noise(N * r, 4))];
  const operands = { a, b, da: null, db: null, ranks: [r], scales: [2], dropout: { p: 0, seed: 0, layers: [0], step: 0 } };
  return {
    call: () => scope(() => loraLinear(x, { weight, bias: null }, operands).dispose()),
    dispose: () => [weight, stored, x, a, b].forEach((thing) => thing.dispose()),
  };
}
