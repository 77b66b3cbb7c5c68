// npm run bench -- --help
import path from 'node:path';
import { type Device, openDevice } from '../src/device.ts';
import { adapterSwitch } from './adapter-switch.ts';
import type { Bench, BenchContext } from './bench.ts';
import { boundary } from './boundary.ts';
import { attention } from './cuda/attention.ts';
import { block } from './cuda/block.ts';
import { skinny } from './cuda/skinny.ts';
import { timeline } from './cuda/timeline.ts';
import { decode } from './decode.ts';
import { large } from './large.ts';
import { loraLinear } from './lora-linear.ts';
import { memory } from './memory.ts';
import { optimizer } from './optimizer.ts';
import { helpText, readCommandLine } from './options.ts';
import { openPeakMeter } from './peak.ts';
import { phase } from './phase.ts';
import { findPeers } from './peers.ts';
import { profile } from './profile.ts';
import { rmsNorm } from './rms-norm.ts';
import { recordOf, saveResult, writeRecord } from './save.ts';
import { scaling } from './scaling.ts';
import { step } from './step.ts';
import { stream } from './stream.ts';
import { renderTable } from './table.ts';

/** Every bench by its name; a new one is a file and a line. */
const benches: Readonly<Record<string, Bench>> = {
  'lora-linear': loraLinear,
  step,
  decode,
  optimizer,
  'rms-norm': rmsNorm,
  'adapter-switch': adapterSwitch,
  boundary,
  memory,
  large,
  profile,
  scaling,
  skinny,
  attention,
  block,
  stream,
  timeline,
};

const options = readCommandLine(process.argv.slice(2), benches);
if (options.help) console.log(helpText(benches));
else await runAll();

async function runAll(): Promise<void> {
  const { device: name, precision: matmulPrecision, activations } = options;
  await using device = await phase('bench', `opening ${name}`, () => openDevice(name, { matmulPrecision, ...(activations === null ? {} : { activations }) }));
  await using medium = await openMedium();
  const peers = options.peers ? await phase('bench', 'looking for peers', () => findPeers(options.python, { threads: device.info.threads, gpu: device.kind === 'cuda' })) : null;
  const context: BenchContext = { options, device, activations: device.info.activations, medium, peers, peak: openPeakMeter(device.kind) };
  console.log(`${device.info.name}, kernels ${device.info.kernels}, ${device.info.threads} threads, matmulPrecision ${device.info.matmulPrecision}`);
  try {
    for (const name of options.names) await runOne(name, benches[name] as Bench, context);
  } finally {
    await context.peak?.stop();
  }
}

/** null where it would compute as `highest` does. */
async function openMedium(): Promise<Device | null> {
  if (options.precision === 'medium' || options.device !== 'cpu') return null;
  const device = await openDevice('cpu', { matmulPrecision: 'medium' });
  if (device.info.matmulPrecision === 'medium') return device;
  device.close();
  return null;
}

async function runOne(name: string, bench: Bench, context: BenchContext): Promise<void> {
  const start = performance.now();
  const result = await bench.run(context);
  for (const [title, rows] of Object.entries(result.tables)) console.log(`\n${name}: ${title}\n\n${renderTable(rows)}`);
  console.log(`(${((performance.now() - start) / 1000).toFixed(0)} s)`);
  if (options.json !== null) writeRecord(path.join(options.json, `${[name, options.shape ?? [], options.peersRun === 'compiled' ? 'compiled' : []].flat().join('-')}.json`), recordOf(name, result, context));
  if (options.save) console.log(`saved as ${saveResult(name, result, context)}`);
}
