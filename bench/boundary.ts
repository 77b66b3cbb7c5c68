import { makeCallWork, nearlyNothing } from '../src/cli/call-work.ts';
import { type LayerShape, layerName } from '../src/cli/layer-work.ts';
import { deviceParty, type Party, ratioSpread, spread, takeTurns, type Work } from '../src/cli/turns.ts';
import type { Device } from '../src/device.ts';
import type { Bench } from './bench.ts';
import { type LineWorker, startLineWorker } from './line-worker.ts';
import { buildNative } from './peak.ts';
import { digits, type Row } from './table.ts';

const shapes: readonly LayerShape[] = [
  { T: 1, K: 768, N: 768, r: 8 },
  { T: 512, K: 768, N: 768, r: 8 },
  nearlyNothing,
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
      for (const shape of shapes) rows.push(await measure(device, shape, worker, options.rounds ?? 15));
      return { tables: { [`µs a call, ${device.info.threads} threads`]: rows } };
    } finally {
      await worker?.stop();
    }
  },
};

async function measure(device: Device, shape: LayerShape, worker: LineWorker | null, rounds: number): Promise<Row> {
  const { op, kernel, dispose } = await makeCallWork(device, shape);
  try {
    const parties: Record<string, Party> = { kernel: deviceParty(device, kernel), op: deviceParty(device, op), waited: { sample: (repeats) => timeWaiting(device, op, repeats) } };
    if (worker !== null) parties['C'] = cParty(worker, shape, device.info.threads);
    const samples = await takeTurns(parties, { rounds });
    const micro = (name: string): number | null => (samples[name] === undefined ? null : digits(spread(samples[name]).median * 1000, 2));
    const over = (name: string): number | null => (samples['C'] === undefined ? null : digits(ratioSpread(samples[name] ?? [], samples['C']).median, 2));
    return {
      layer: layerName(shape),
      'through C': micro('C'),
      'TypeScript, outputs kept': micro('kernel'),
      'over C': over('kernel'),
      'TypeScript, an op': micro('op'),
      'op over C': over('op'),
      'op, each awaited': micro('waited'),
    };
  } finally {
    dispose();
  }
}

function cParty(worker: LineWorker, { T, K, N, r }: LayerShape, threads: number): Party {
  return { sample: async (repeats) => ((await worker.ask([T, K, N, r, threads, repeats].join(' '))) as { ms: number }).ms };
}

async function timeWaiting(device: Device, call: Work, repeats: number): Promise<number> {
  const start = performance.now();
  for (let i = 0; i < repeats; i++) {
    call();
    await device.fence();
  }
  return (performance.now() - start) / repeats;
}
