import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Command } from 'commander';
import { openDevice, type Device } from '../device.ts';
import { LowrankError } from '../error.ts';
import { LoraLinear } from '../lora/lora-linear.ts';
import { fillInplace } from '../ops/elementwise.ts';
import { scope } from '../scope.ts';
import { Tape } from '../tape.ts';
import type { Tensor } from '../tensor.ts';

export function addBench(program: Command): void {
  program
    .command('bench')
    .description('time the native kernels on this machine')
    .option('--device <name>', 'cpu, cuda, cuda:N or auto', 'auto')
    .option('--quick', 'only the two layers, also in a checkout of the project')
    .action(bench);
}

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../..');

async function bench({ device: name, quick }: { device: string; quick?: boolean }): Promise<void> {
  {
    await using device = await openDevice(name);
    process.stdout.write(`${device.info.name || device.kind}, kernels ${device.info.kernels}, ${device.info.threads} threads\n`);
    for (const shape of shapes) process.stdout.write(`${await timeLayer(device, shape)}\n`);
  }
  const main = path.join(root, 'bench', 'main.ts');
  if (quick) return;
  if (existsSync(main)) await runFile(main);
  else process.stdout.write("the project's other benches are in its repository (bench/main.ts), not in this package\n");
}

interface LayerShape {
  readonly tokens: number;
  readonly width: number;
  readonly out: number;
  readonly rank: number;
}

/** A projection of SmolLM-135M, and one of a 1.5-billion-parameter Qwen2. */
const shapes: readonly LayerShape[] = [
  { tokens: 512, width: 576, out: 1536, rank: 16 },
  { tokens: 256, width: 1536, out: 8960, rank: 16 },
];

/** One LoRA layer forward and backward, median of several; ends with the arithmetic it did a second. */
async function timeLayer(device: Device, { tokens, width, out, rank }: LayerShape): Promise<string> {
  const noise = (length: number): Float32Array => Float32Array.from({ length }, (_, i) => Math.sin(i * 0.37) / 8);
  using layer = new LoraLinear(noise(out * width), { device, inFeatures: width, rank, alpha: 2 * rank });
  using x = device.tensor(noise(tokens * width), [tokens, width]);
  const times: number[] = [];
  for (let turn = 0; turn < 12; turn++) {
    const start = performance.now();
    scope(() => {
      using tape = new Tape();
      tape.watch(x);
      const y = tape.record(() => layer.forward(x));
      tape.backward(y, seed(y)).forEach((gradient) => gradient.dispose());
    });
    await device.fence();
    if (turn >= 2) times.push(performance.now() - start);
  }
  times.sort((a, b) => a - b);
  const median = times[times.length >> 1] as number;
  // x·W0 and dy·W0, and for the adapter u, its part of y, v, dA, dB and its part of dx; a multiplication and an addition each.
  const flops = 2 * tokens * (2 * width * out + 3 * rank * (width + out));
  const spread = `${(times[0] as number).toFixed(2)}–${(times.at(-1) as number).toFixed(2)}`;
  return `lora_linear forward + backward, ${tokens} tokens, ${width} to ${out}, rank ${rank}, f32: ${median.toFixed(2)} ms (${spread}), ${(flops / median / 1e6).toFixed(1)} GFLOP/s`;
}

/** Ones: what is not initialised could be NaN or denormal, which some processors are slow at. */
function seed(y: Tensor): Tensor {
  const dy = y.like();
  fillInplace(dy, 1);
  return dy;
}

async function runFile(file: string): Promise<void> {
  const child = spawn(process.execPath, ['--import', 'tsx', file], { stdio: 'inherit', cwd: root });
  const code = await new Promise<number | null>((resolve, reject) => child.on('error', reject).on('exit', resolve));
  if (code !== 0) throw new LowrankError('ERR_INTERNAL', `bench: ${path.relative(root, file)} must run to its end (it exited with ${String(code)})`);
}
