import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { cpus, freemem, release, totalmem } from 'node:os';
import type { Command } from 'commander';
import { type Device, openDevice, probeDevices } from '../device.ts';
import { addonFault, addonFile } from '../native.ts';
import { LoraLinear } from '../lora/lora-linear.ts';
import { scope } from '../scope.ts';
import { bytes, table } from './format.ts';

export function addDoctor(program: Command): void {
  program
    .command('doctor')
    .description('what this machine can do, and why not more')
    .option('--json', 'one JSON object on stdout')
    .action(doctor);
}

type Findings = Record<string, string>;

/** Exit status 1 only if the CPU backend can't work. */
async function doctor({ json }: { json?: boolean }): Promise<void> {
  const fault = addonFault();
  const findings: Findings = { ...systemFacts(), ...(fault === null ? await deviceFacts() : { addon: `can't be loaded: ${fault.message}` }), ...packageFacts() };
  const usable = findings['self-test']?.startsWith('passed') ?? false;
  const verdict = usable ? 'fine: the CPU backend works' : 'the CPU backend does not work here';
  if (json) process.stdout.write(`${JSON.stringify({ usable, ...findings })}\n`);
  else process.stdout.write(`${table(Object.entries(findings))}\n${verdict}\n`);
  process.exitCode = usable ? 0 : 1;
}

function systemFacts(): Findings {
  const processors = cpus();
  return {
    platform: `${process.platform}-${process.arch}, kernel ${release()}, Node ${process.version}`,
    processor: `${processors[0]?.model.trim() ?? 'unknown'}, ${processors.length} logical`,
    memory: `${bytes(totalmem())}, ${bytes(freemem())} free${memoryLimit()}`,
    'huge pages': hugePages(),
    settings: Object.entries(process.env).filter(([name]) => name.startsWith('LOWRANK_')).map(([name, value]) => `${name}=${value}`).join(' ') || 'no LOWRANK_ variable is set',
  };
}

/** A container's limit, which `os.totalmem` doesn't know. */
function memoryLimit(): string {
  const limit = Number(firstLine('/sys/fs/cgroup/memory.max') ?? NaN);
  return Number.isFinite(limit) && limit < totalmem() ? `; this container may use ${bytes(limit)}` : '';
}

function hugePages(): string {
  const chosen = /\[(\w+)\]/.exec(firstLine('/sys/kernel/mm/transparent_hugepage/enabled') ?? '')?.[1];
  if (chosen === undefined) return 'unknown here';
  return chosen === 'never' ? 'never (echo madvise > /sys/kernel/mm/transparent_hugepage/enabled may speed big models up)' : chosen;
}

function firstLine(file: string): string | null {
  try {
    return existsSync(file) ? (readFileSync(file, 'utf8').split('\n')[0] ?? '') : null;
  } catch {
    return null;
  }
}

async function deviceFacts(): Promise<Findings> {
  const found: Findings = { addon: addonFile() ?? 'unknown' };
  try {
    await using device = await openDevice('cpu');
    const { name, kernels, threads, activations } = device.info;
    found['cpu'] = `${name}; kernels ${kernels} (${wider(kernels)}); ${threads} threads; activations ${activations}`;
    found['cpu medium'] = await mediumFact();
    found['self-test'] = await selfTest(device);
  } catch (error) {
    found['cpu'] = `can't be used: ${(error as Error).message}`;
  }
  return { ...found, ...(await cudaFacts()) };
}

/** What `matmulPrecision: 'medium'` is good for here. */
async function mediumFact(): Promise<string> {
  await using device = await openDevice('cpu', { matmulPrecision: 'medium' });
  return device.info.products || 'f32: bf16 would be no faster here';
}

/** What there is, each device by its name, and whether it computes; or why there is none. */
async function cudaFacts(): Promise<Findings> {
  const { count, why } = probeDevices('cuda');
  if (count === 0) return { cuda: `none: ${why}` };
  const names: string[] = [];
  const more: Findings = {};
  for (let i = 0; i < count; i++) {
    try {
      await using device = await openDevice(`cuda:${i}`);
      const { name, kernels, memory, freeMemory, activations, products } = device.info;
      names.push(`${name}, ${bytes(memory)}, ${bytes(freeMemory)} free; kernels ${kernels}; activations ${activations}`);
      if (i > 0) continue;
      more['cuda products'] = `of 16 bits by ${products}`;
      more['cuda self-test'] = await cudaTest();
    } catch (error) {
      names.push(`device ${i}, but: ${(error as Error).message}`);
    }
  }
  const cuda = `${count} device${count === 1 ? '' : 's'}: ${names.join('; ')}`;
  return { cuda, ...more };
}

/** In f32, where the bound is the CPU's. */
async function cudaTest(): Promise<string> {
  await using device = await openDevice('cuda', { activations: 'f32' });
  return await selfTest(device); // before it is closed
}

const isa: Readonly<Record<string, string>> = {
  avx512: 'AVX-512', avx2: 'AVX2 and FMA; avx512 would need AVX-512', base: process.arch === 'x64' ? 'SSE4.2; avx2 would need AVX2 and FMA' : 'what every processor of this kind has',
};

function wider(kernels: string): string {
  const forced = process.env['LOWRANK_ISA'] === undefined ? '' : ', forced by LOWRANK_ISA';
  return `${isa[kernels] ?? 'generic'}${forced}`;
}

/** One LoRA layer's output against the sum written out. */
async function selfTest(device: Device): Promise<string> {
  const [tokens, width, out] = [3, 37, 19];
  const wave = (length: number, step: number): Float32Array => Float32Array.from({ length }, (_, i) => Math.sin(step * i + 1));
  const [w, x, b] = [wave(out * width, 0.7), wave(tokens * width, 1.3), wave(out * 2, 0.9)];
  using layer = new LoraLinear(w, { device, inFeatures: width, rank: 2, alpha: 4, seed: 1 });
  layer.b.upload(b);
  const a = await layer.a.data();
  using input = device.tensor(x, [tokens, width]);
  using output = scope(() => layer.forward(input));
  const y = await output.data();
  let worst = 0;
  for (let t = 0; t < tokens; t++) {
    const dot = (m: Float32Array, row: number): number => m.subarray(row * width, (row + 1) * width).reduce((sum, value, k) => sum + value * (x[t * width + k] as number), 0);
    const u = [dot(a, 0), dot(a, 1)] as const;
    for (let n = 0; n < out; n++) {
      const wanted = dot(w, n) + 2 * (u[0] * (b[2 * n] as number) + u[1] * (b[2 * n + 1] as number));
      worst = Math.max(worst, Math.abs(wanted - (y[t * out + n] as number)));
    }
  }
  return worst < 1e-4 ? `passed (a LoRA layer is right to ${worst.toExponential(0)})` : `failed: a LoRA layer is off by ${worst}`;
}

function packageFacts(): Findings {
  const require = createRequire(import.meta.url);
  const versions = ['@huggingface/tokenizers', '@huggingface/jinja', 'hyparquet', 'csv-parse'].map((name) => `${name} ${versionOf(require, name)}`);
  return { packages: versions.join(', ') };
}

/** By the file, since most packages don't export their manifest. */
function versionOf(require: NodeJS.Require, name: string): string {
  for (const folder of require.resolve.paths(name) ?? []) {
    const file = `${folder}/${name}/package.json`;
    if (existsSync(file)) return (JSON.parse(readFileSync(file, 'utf8')) as { version: string }).version;
  }
  return 'not found';
}
