import { execFile, spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';
import { root } from './prebuild.ts';

/** A project that has lowrank from a tarball and nothing else, and a PATH without compiler, cmake or Python. */
export interface Project {
  readonly folder: string;
  readonly env: Readonly<Record<string, string>>;
  /** How long `npm install` took. */
  readonly seconds: number;
}

/** What a consumer prints: the loss of its first and last step, tensors that are left. */
export interface Told {
  readonly first: number;
  readonly last: number;
  readonly tensors: number;
  readonly node: string;
}

/** Installs the tarball without scripts into a new project at `folder`, which has the consumers of test/package. */
export function installInto(folder: string, tarball: string): Project {
  const bin = path.join(folder, 'bin');
  linkTools(bin, ['npm', 'sh']);
  symlinkSync(process.execPath, path.join(bin, 'node'));
  cpSync(path.join(root, 'test/package/consumers'), folder, { recursive: true });
  writeFileSync(path.join(folder, 'package.json'), JSON.stringify({ name: 'consumer', private: true }));
  const env = { ...withoutPath(process.env), PATH: bin };
  const began = performance.now();
  const { status, stderr } = spawnSync(path.join(bin, 'npm'), ['install', '--ignore-scripts', '--prefer-offline', '--no-audit', '--no-fund', tarball], { cwd: folder, env, encoding: 'utf8' });
  if (status !== 0) throw new Error(`npm install must take the tarball (exit status ${String(status)})\n${stderr}`);
  return { folder, env, seconds: (performance.now() - began) / 1000 };
}

/** A folder to have as the whole PATH: those of these programs that this machine has. */
export function linkTools(bin: string, names: readonly string[]): void {
  mkdirSync(bin, { recursive: true });
  for (const name of names) {
    const found = spawnSync('which', [name], { encoding: 'utf8' }).stdout.trim();
    if (found !== '') symlinkSync(found, path.join(bin, name));
  }
}

/** What npm tells its scripts must not steer the npm of another project; LOWRANK_ variables neither. */
function withoutPath(env: NodeJS.ProcessEnv): Record<string, string> {
  return Object.fromEntries(Object.entries(env).filter((entry): entry is [string, string] => entry[1] !== undefined && !/^(npm_|LOWRANK_|NODE_OPTIONS$|PATH$)/.test(entry[0])));
}

/** Runs a script of the project and reads the lines it prints. */
export async function consume({ folder, env }: Project, script: string, node = process.execPath): Promise<Told[]> {
  const { stdout } = await promisify(execFile)(node, [script], { cwd: folder, env });
  return stdout.trim().split('\n').map((line) => JSON.parse(line) as Told);
}

/** Why what a consumer told is not what a consumer must tell; undefined if it is. */
export function faultOf({ first, last, tensors }: Told): string | undefined {
  if (!(last < first - 0.1)) return `the loss must fall (${first} to ${last})`;
  return tensors === 0 ? undefined : `no tensor may be left (${tensors})`;
}

export function versionOf(folder: string, name: string): string {
  return (JSON.parse(readFileSync(path.join(folder, 'node_modules', name, 'package.json'), 'utf8')) as { version: string }).version;
}
