import { type CallsFromC, startCallsFromC } from '../src/cli/call-from-c.ts';
import { callShapes, makeCallWork } from '../src/cli/call-work.ts';
import { type LayerShape, layerName } from '../src/cli/layer-work.ts';
import { deviceParty, type Party, ratioSpread, spread, takeTurns, type Work } from '../src/cli/turns.ts';
import type { Device } from '../src/device.ts';
import type { Bench } from './bench.ts';
import { digits, type Row } from './table.ts';

/** What it costs to call a kernel from TypeScript instead of C. */
export const boundary: Bench = {
  about: 'a lora_linear call (bf16 W0, forward) through the C ABI and through TypeScript, T=1 and T=512',
  usual: true,
  async run({ device, options }) {
    const started = startCallsFromC();
    if ('why' in started) console.log(`boundary: C is not measured (${started.why})`);
    const c = 'why' in started ? null : started;
    try {
      const rows: Row[] = [];
      for (const shape of callShapes) rows.push(await measure(device, shape, c, options.rounds ?? 15));
      return { tables: { [`µs a call, ${device.info.threads} threads`]: rows } };
    } finally {
      await c?.stop();
    }
  },
};

async function measure(device: Device, shape: LayerShape, c: CallsFromC | null, rounds: number): Promise<Row> {
  const { op, kernel, dispose } = await makeCallWork(device, shape);
  try {
    const parties: Record<string, Party> = { kernel: deviceParty(device, kernel), op: deviceParty(device, op), waited: { sample: (repeats) => timeWaiting(device, op, repeats) } };
    if (c !== null) parties['C'] = c.party(shape, device.info.threads);
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

async function timeWaiting(device: Device, call: Work, repeats: number): Promise<number> {
  const start = performance.now();
  for (let i = 0; i < repeats; i++) {
    call();
    await device.fence();
  }
  return (performance.now() - start) / repeats;
}
