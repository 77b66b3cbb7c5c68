import { spawn, spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { availableParallelism, tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Command } from 'commander';
import { LowrankError } from '../error.ts';
import { wholeNumber } from './usage.ts';

interface BuildFlags {
  /** Undefined: where there is a compiler for it. */
  readonly cuda?: boolean;
  readonly arch?: string;
  readonly jobs: number;
  readonly keep?: boolean;
}

export function addBuild(program: Command): void {
  program
    .command('build')
    .description('build the native addon of this package from source, where none comes ready (needs g++ 11 or newer, cmake and Highway)')
    .option('--cuda', 'with the CUDA plugin; fails without nvcc (default: where nvcc is found)')
    .option('--no-cuda', 'without it')
    .option('--arch <list>', "its GPUs, in CMake's words: 90a-real, or 80-real;86-real")
    .option('--jobs <n>', 'compilers at a time', wholeNumber(1), availableParallelism())
    .option('--keep', 'leave the folder that it was built in')
    .action(build);
}

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../..');

async function build(flags: BuildFlags): Promise<void> {
  needTools(flags);
  const folder = mkdtempSync(path.join(tmpdir(), 'lowrank-build-'));
  try {
    await run('cmake', ['-S', root, '-B', folder, ...settings(flags)]);
    const cuda = flags.cuda !== false && existsSync(path.join(folder, 'cuda', 'cmake_install.cmake'));
    await run('cmake', ['--build', folder, '--parallel', String(flags.jobs), '--target', 'lowrank', ...(cuda ? ['lowrank_cuda'] : [])]);
    for (const name of readdirSync(path.join(folder, 'Release'))) install(path.join(folder, 'Release', name));
  } finally {
    if (flags.keep) process.stdout.write(`built in ${folder}\n`);
    else rmSync(folder, { recursive: true, force: true });
  }
  await run(process.execPath, [...process.execArgv, process.argv[1] as string, 'doctor']);
}

function needTools({ cuda }: BuildFlags): void {
  const tools = cuda === true ? ['cmake', 'nvcc'] : ['cmake'];
  const missing = tools.filter((tool) => spawnSync(tool, ['--version'], { stdio: 'ignore' }).status !== 0);
  if (missing.length === 0) return;
  throw new LowrankError('ERR_ADDON', `lowrank build: ${missing.join(' and ')} must be installed (Debian: apt-get install g++ cmake libhwy-dev; nvcc comes with NVIDIA's CUDA toolkit, 12.8 or newer)`);
}

function settings({ cuda, arch }: BuildFlags): string[] {
  const require = createRequire(import.meta.url);
  const headers = ['node-api-headers/include', 'node-addon-api'].map((place) => {
    const [name, ...inside] = place.split('/') as [string, ...string[]];
    return path.join(path.dirname(require.resolve(`${name}/package.json`)), ...inside);
  });
  const gpus = arch === undefined ? [] : [`-DCMAKE_CUDA_ARCHITECTURES=${arch}`];
  return ['-DCMAKE_BUILD_TYPE=Release', `-DCMAKE_JS_INC=${headers.join(';')}`, `-DLOWRANK_CUDA=${cuda === false ? 'OFF' : 'ON'}`, ...gpus];
}

/** Where the addon is looked for first; in one move, since a process may hold the old one open. */
function install(file: string): void {
  const folder = path.join(root, 'build', 'Release');
  mkdirSync(folder, { recursive: true });
  const place = path.join(folder, path.basename(file));
  cpSync(file, `${place}.new`);
  renameSync(`${place}.new`, place);
  process.stdout.write(`${place}\n`);
}

async function run(command: string, args: readonly string[]): Promise<void> {
  const child = spawn(command, args, { stdio: 'inherit' });
  const code = await new Promise<number | null>((resolve, reject) => child.on('error', reject).on('exit', resolve));
  if (code !== 0) throw new LowrankError('ERR_ADDON', `lowrank build: ${path.basename(command)} must run to its end (it exited with ${String(code)}; what it printed stands above)`);
}
