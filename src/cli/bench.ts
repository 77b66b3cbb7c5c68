import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Command } from 'commander';
import { openDevice, type Device } from '../device.ts';
import { LowrankError } from '../error.ts';
import { type CallsFromC, startCallsFromC } from './call-from-c.ts';
import { callShapes, makeCallWork } from './call-work.ts';
import { flopFloor, frozenFlops, layerName, makeLayerWork, type LayerShape } from './layer-work.ts';
import { deviceParty, ratioSpread, spread, takeTurns } from './turns.ts';

export function addBench(program: Command): void {
  program
    .command('bench')
    .description('time the native kernels on this machine')
    .option('--device <name>', 'cpu, cuda, cuda:N or auto', 'auto')
    .option('--quick', 'only the two layers and the cost of a call, also in a checkout of the project')
    .action(bench);
}

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../..');

async function bench({ device: name, quick }: { device: string; quick?: boolean }): Promise<void> {
  {
    await using device = await openDevice(name);
    process.stdout.write(`${device.info.name || device.kind}, kernels ${device.info.kernels}, ${device.info.threads} threads\n`);
    for (const shape of shapes) process.stdout.write(`${await timeLayer(device, shape)}\n`);
    await timeCalls(device);
  }
  const main = path.join(root, 'bench', 'main.ts');
  if (quick) return;
  if (existsSync(main)) await runFile(main);
  else process.stdout.write("the project's other benches are in its repository (bench/main.ts), not in this package\n");
}

/** A projection of SmolLM-135M, and one of a 1.5-billion-parameter Qwen2. */
const shapes: readonly LayerShape[] = [
  { T: 512, K: 576, N: 1536, r: 16 },
  { T: 256, K: 1536, N: 8960, r: 16 },
];

/** One LoRA layer forward and backward beside its frozen layer, as a line. */
async function timeLayer(device: Device, shape: LayerShape): Promise<string> {
  const layer = makeLayerWork(device, shape, { stored: 'bf16' });
  try {
    await layer.check();
    const samples = await takeTurns({ frozen: deviceParty(device, layer.frozen), lora: deviceParty(device, layer.lora(0)) });
    const [frozen, lora] = [samples['frozen'] ?? [], samples['lora'] ?? []];
    const { median, low, high } = spread(lora);
    const rate = (frozenFlops(shape) * flopFloor(shape)) / median / 1e6;
    const ratio = `${ratioSpread(lora, frozen).median.toFixed(3)} of the frozen layer (arithmetic alone: ${flopFloor(shape).toFixed(3)})`;
    return `LoRA linear forward + backward, ${layerName(shape)}, bf16: ${median.toFixed(2)} ms (${low.toFixed(2)}–${high.toFixed(2)}), ${rate.toFixed(0)} GFLOP/s, ${ratio}`;
  } finally {
    layer.dispose();
  }
}

/** What the way from TypeScript to the kernel costs, a line for each layer; the same through C, where that can be. */
async function timeCalls(device: Device): Promise<void> {
  const started = device.kind === 'cpu' ? startCallsFromC() : { why: 'the program for it is for the CPU' };
  if ('why' in started) process.stdout.write(`calls through C are not timed: ${started.why}\n`);
  const c = 'why' in started ? null : started;
  try {
    for (const shape of callShapes) process.stdout.write(`${await timeCall(device, shape, c)}\n`);
  } finally {
    await c?.stop();
  }
}

async function timeCall(device: Device, shape: LayerShape, c: CallsFromC | null): Promise<string> {
  const { op, kernel, dispose } = await makeCallWork(device, shape);
  try {
    const samples = await takeTurns({ ...(c === null ? {} : { C: c.party(shape, device.info.threads) }), kernel: deviceParty(device, kernel), op: deviceParty(device, op) });
    const micro = (name: string): string => (spread(samples[name] ?? []).median * 1000).toFixed(1);
    const through = c === null ? '' : `${micro('C')} µs through C, `;
    return `LoRA linear call, forward, ${layerName(shape)}: ${through}${micro('kernel')} µs from TypeScript, ${micro('op')} µs with its outputs made and disposed of`;
  } finally {
    dispose();
  }
}

async function runFile(file: string): Promise<void> {
  const child = spawn(process.execPath, ['--import', 'tsx', file], { stdio: 'inherit', cwd: root });
  const code = await new Promise<number | null>((resolve, reject) => child.on('error', reject).on('exit', resolve));
  if (code !== 0) throw new LowrankError('ERR_INTERNAL', `bench: ${path.relative(root, file)} must run to its end (it exited with ${String(code)})`);
}
