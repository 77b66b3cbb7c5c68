// npm run prebuild: what build/Release has, stripped and held to its floor, in prebuilds/<platform>-<arch>.
import { spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, mkdtempSync, realpathSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { binaries } from './binaries.ts';
import { faultsOf, readNeeds } from './elf.ts';

export const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../..');

/**
 * Puts the binaries under `out/prebuilds` and returns a line about each; `partly`: those that were built, since not every machine has nvcc.
 * prebuildify works on a copy, because it strips and moves what it finds.
 */
export function prebuild(out: string, partly = false): string[] {
  const shipped = binaries.filter(({ file }) => !partly || file === 'lowrank.node' || existsSync(path.join(root, 'build', 'Release', file)));
  const stage = mkdtempSync(path.join(tmpdir(), 'lowrank-prebuild-'));
  try {
    const release = path.join(stage, 'build', 'Release');
    mkdirSync(release, { recursive: true });
    for (const { file } of shipped) cpSync(realpathSync(builtFile(file)), path.join(release, file));
    // It would call node-gyp; what it would build lies there.
    run(path.join(root, 'node_modules/.bin/prebuildify'), ['--napi', '--strip', '--name', 'lowrank', '--node-gyp', 'true', '--cwd', stage, '--out', out]);
  } finally {
    rmSync(stage, { recursive: true });
  }
  const folder = path.join(out, 'prebuilds', `${process.platform}-${process.arch}`);
  for (const { file } of shipped.filter((each) => /\.so\.\d+\.\d+$/.test(each.file))) copyStripped(file, path.join(folder, file));
  return shipped.map(({ file }) => check(path.join(folder, file)));
}

/** prebuildify takes no library whose name ends in more than one number. */
function copyStripped(file: string, to: string): void {
  cpSync(realpathSync(builtFile(file)), to);
  run('strip', ['--strip-all', to]);
}

function builtFile(name: string): string {
  const file = path.join(root, 'build', 'Release', name);
  if (!existsSync(file)) throw new Error(`prebuild: ${path.relative(root, file)} must be there; run npm run build:native (the plugin needs nvcc)`);
  return file;
}

function check(file: string): string {
  const binary = binaries.find((each) => each.file === path.basename(file));
  const needs = readNeeds(file);
  const faults = binary === undefined ? ['is not on the list'] : faultsOf(binary, needs);
  if (faults.length > 0) throw new Error(`prebuild: ${path.basename(file)}\n${faults.map((fault) => `  - ${fault}`).join('\n')}`);
  const versions = Object.entries(needs.versions).map(([family, version]) => `${family}_${version}`).join(' ');
  return `${(statSync(file).size / 2 ** 20).toFixed(2).padStart(6)} MiB  ${path.basename(file)}: ${versions}; ${needs.libraries.join(' ')}`;
}

function run(command: string, args: readonly string[]): void {
  const { status, stderr } = spawnSync(command, args, { encoding: 'utf8', stdio: ['ignore', 'inherit', 'pipe'] });
  if (status !== 0) throw new Error(`${path.basename(command)} must run to its end (exit status ${String(status)})\n${stderr}`);
}

if (import.meta.url === pathToFileURL(process.argv[1] as string).href) {
  console.log(prebuild(root).join('\n'));
}
