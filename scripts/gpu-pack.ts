// npm run gpu:check: packs into .gpu/ (git-ignored) what a bare machine with an NVIDIA GPU needs for scripts/gpu-check.sh: Node, the
// modules, what was built here. The sources travel with the checkout. There, in the repository's root: bash .gpu/run.sh
import { execFileSync, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { buildNative } from '../bench/peak.ts';
import { compileC } from '../test/capi/native.ts';
import { type Lock, packageFolders } from './package-folders.ts';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
const folder = path.join(root, '.gpu');
const limitMiB = 60; // what a machine for checks may take along, less some of its own

const built = ['build/Release/lowrank.node', 'build/Release/liblowrank_cuda.so', 'build/Release/liblowrank.so'];
const unneeded = ['*.map', '*.d.ts', '*.d.mts', '*.d.cts', '*.md'];

/** The same bytes for the same files: names in order, no owner, no time, blocks of one size. */
function pack(name: string, members: readonly string[], excluded: readonly string[] = []): void {
  const [tar, out] = [path.join(folder, 'unfinished.tar'), path.join(folder, name)];
  const sameness = ['--sort=name', '--mtime=@0', '--owner=0', '--group=0', '--numeric-owner', '--mode=u+rw,go=rX', '--dereference'];
  execFileSync('tar', [...sameness, ...excluded.map((pattern) => `--exclude=${pattern}`), '-C', root, '-cf', tar, ...members]);
  compress(tar, out);
  rmSync(tar);
}

function compress(file: string, out: string): void {
  const unfinished = `${out}.unfinished`;
  execFileSync('bash', ['-c', 'xz -6 -T0 --block-size=16MiB -c "$1" > "$2"', 'xz', file, unfinished]);
  renameSync(unfinished, out);
}

/** Makes NAME-KEY… unless it is there, and drops those of other keys. */
function cached(name: string, key: string, ending: string, make: (file: string) => void): void {
  const file = `${name}-${key}${ending}`;
  for (const other of readdirSync(folder)) if (other.startsWith(`${name}-`) && other !== file) rmSync(path.join(folder, other));
  if (!existsSync(path.join(folder, file))) make(file);
}

/** A program of bench/cuda; one that can't be built is only missed by `stage`. */
function benchProgram(target: 'gpu_peak' | 'timeline', stage: string): readonly string[] {
  const found = buildNative(target);
  if ('file' in found) return [path.relative(root, found.file)];
  console.log(`gpu:check: ${stage} will not be run: ${found.why}`);
  return [];
}

/** The checks of the C ABI on a device: a machine with a GPU need not have a compiler. */
function capiChecks(): string {
  const program = 'build/capi/own_memory';
  mkdirSync(path.join(root, 'build/capi'), { recursive: true });
  return path.relative(root, compileC('test/capi/own_memory.c', path.join(root, program)));
}

function commit(): string {
  const git = (...args: string[]): string => execFileSync('git', args, { cwd: root, encoding: 'utf8' }).trim();
  return git('rev-parse', '--short', 'HEAD') + (git('status', '--porcelain', '--untracked-files=no') === '' ? '' : ', changed');
}

function main(): void {
  const missing = built.filter((file) => !existsSync(path.join(root, file)));
  if (missing.length > 0) throw new Error(`gpu:check: ${missing.join(', ')} must be there: npm run build:native, with nvcc on the path`);
  if (spawnSync('xz', ['--version']).status !== 0) throw new Error('gpu:check: xz must be installed (Debian: xz-utils)');
  mkdirSync(folder, { recursive: true });
  cached('node', process.version, '.xz', (file) => compress(process.execPath, path.join(folder, file)));
  const lockText = readFileSync(path.join(root, 'package-lock.json'));
  const lock = JSON.parse(lockText.toString()) as Lock & { packages: { '': { dependencies: Record<string, string> } } };
  const hash = createHash('sha256').update(lockText).digest('hex').slice(0, 12);
  const wanted = ['vitest', 'tsx', ...Object.keys(lock.packages[''].dependencies)];
  cached('modules', hash, '.tar.xz', (file) => pack(file, packageFolders(lock, wanted, (at) => existsSync(path.join(root, at))), unneeded));
  pack('build.tar.xz', [...built, capiChecks(), ...benchProgram('gpu_peak', 'rates'), ...benchProgram('timeline', 'timeline')]);
  writeFileSync(path.join(folder, 'commit'), `${commit()}\n`);
  copyFileSync(path.join(root, 'scripts/gpu-check.sh'), path.join(folder, 'run.sh'));
  report();
}

function report(): void {
  const sizes = readdirSync(folder).map((name) => [name, statSync(path.join(folder, name)).size / 2 ** 20] as const);
  const total = sizes.reduce((sum, [, size]) => sum + size, 0);
  for (const [name, size] of sizes) console.log(`${size.toFixed(2).padStart(7)} MiB  .gpu/${name}`);
  console.log(`${total.toFixed(2).padStart(7)} MiB  there: bash .gpu/run.sh`);
  if (total > limitMiB) throw new Error(`gpu:check: .gpu must stay below ${limitMiB} MiB (found ${total.toFixed(1)})`);
}

main();
