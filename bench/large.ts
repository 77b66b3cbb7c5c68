import { spawn, spawnSync } from 'node:child_process';
import { existsSync, readdirSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Bench } from './bench.ts';
import { largeModel, llama7b } from './large-model.ts';
import type { LargeEnd, LargeStep } from './large.child.ts';
import { type MemoryGroup, openMemoryGroup } from './memory-group.ts';
import { digits, type Row } from './table.ts';

const child = fileURLToPath(new URL('large.child.ts', import.meta.url));
const tokens = 128;

/** A 7B-shaped model in bf16, 13.5 GB: training steps with the memory of the machine, and again with half of what the weights take. */
export const large: Bench = {
  about: 'a 7B-shaped model (13.5 GB, kept in the temporary folder): steps with all memory and, in a memory group, with half of the weights\' (--limit BYTES)',
  usual: false,
  async run({ options: { rounds, limit } }) {
    const folder = await largeModel(path.join(tmpdir(), 'lowrank-llama7b'), llama7b);
    const shards = readdirSync(folder).filter((name) => name.endsWith('.safetensors')).map((name) => path.join(folder, name));
    const bytes = shards.reduce((sum, shard) => sum + statSync(shard).size, 0);
    console.log(`large: ${folder}, ${(bytes / 1e9).toFixed(2)} GB in ${shards.length} shards; delete it when it is no longer needed`);
    const runs = [await run(shards, folder, rounds ?? 2, null), await run(shards, folder, rounds ?? 2, limit ?? Math.floor(bytes / 2))];
    return {
      tables: {
        [`steps of ${llama7b.name}, bf16, r16 on all linears, checkpointed, 1×${tokens} tokens`]: runs.flatMap((each) => each.steps),
        'memory, MiB': runs.map(({ memory }) => memory),
      },
    };
  },
};

interface Run {
  readonly steps: readonly Row[];
  readonly memory: Row;
}

async function run(shards: readonly string[], folder: string, steps: number, limit: number | null): Promise<Run> {
  const group = limit === null ? null : openMemoryGroup(limit);
  if (typeof group === 'string') console.log(`large: ${group}: the run with ${limit} bytes is left out`);
  if (typeof group === 'string') return { steps: [], memory: { run: 'limited', what: group } };
  const name = limit === null ? 'all memory' : `${(limit / 1e9).toFixed(2)} GB`;
  try {
    for (const shard of shards) forget(shard);
    const disk = diskRate(shards);
    const lines = await trainIn(group, [folder, String(tokens), String(steps)]);
    const end = lines.at(-1) as LargeEnd;
    return { steps: (lines.slice(0, -1) as LargeStep[]).map((step) => stepRow(name, step, disk)), memory: memoryRow(name, end, group) };
  } finally {
    group?.remove();
  }
}

/** Takes a file out of the system's cache. */
function forget(file: string): void {
  spawnSync('dd', [`if=${file}`, 'iflag=nocache', 'count=0'], { stdio: 'ignore' });
}

/** Bytes a second that dd reads past the cache: a GiB in the middle of each file. NaN where there is no such dd or file system. */
function diskRate(files: readonly string[]): number {
  const start = performance.now();
  const done = files.map((file) => spawnSync('dd', [`if=${file}`, 'of=/dev/null', 'bs=32M', 'count=32', 'skip=32', 'iflag=direct'], { stdio: 'ignore' }).status === 0);
  return done.every(Boolean) ? (files.length * 2 ** 30) / ((performance.now() - start) / 1000) : NaN;
}

/** The child's lines; what GNU time tells of it goes to the terminal. */
async function trainIn(group: MemoryGroup | null, args: readonly string[]): Promise<readonly unknown[]> {
  const time = existsSync('/usr/bin/time') ? ['/usr/bin/time', '-v'] : [];
  const [command, ...rest] = [...(group?.enter ?? []), ...time, process.execPath, '--import', 'tsx', child, ...args] as [string, ...string[]];
  const running = spawn(command, rest, { stdio: ['ignore', 'pipe', 'pipe'] });
  let [out, told] = ['', ''];
  running.stdout.on('data', (text: Buffer) => (out += text.toString()));
  running.stderr.on('data', (text: Buffer) => (told += text.toString()));
  const code = await new Promise((resolve) => running.on('close', resolve));
  if (code !== 0) throw new Error(`large: the run must end well (it ended with ${code})\n${told}`);
  for (const line of told.split('\n')) if (/Elapsed|Maximum resident|Major|File system inputs/.test(line)) console.log(line);
  return out.trim().split('\n').map((line) => JSON.parse(line) as unknown);
}

function stepRow(run: string, { step, seconds, loss, readBytes }: LargeStep, disk: number): Row {
  return {
    run, step, s: digits(seconds, 1), 'tokens/s': digits(tokens / seconds, 2), loss: digits(loss, 4), 'GB read': digits(readBytes / 1e9, 2),
    'GB/s over the step': digits(readBytes / seconds / 1e9, 2), 'disk alone, GB/s': digits(disk / 1e9, 2),
  };
}

function memoryRow(run: string, end: LargeEnd, group: MemoryGroup | null): Row {
  return {
    run, 'peak anonymous': end.peakAnonymousMiB, 'of that before loading': end.importsMiB, 'peak of the pool': end.poolPeakMiB, 'estimate of the pool': end.estimateMiB,
    'peak resident': end.peakMiB, "peak of the group": group === null ? null : Math.round(group.peak() / 2 ** 20), weights: end.weightsMiB,
  };
}
