import { execFileSync } from 'node:child_process';
import { statSync } from 'node:fs';
import path from 'node:path';
import { type Binary, floor, systemLibraries } from './binaries.ts';

/** What a binary asks of the system it is loaded on, and what it offers. */
export interface Needs {
  readonly libraries: readonly string[];
  /** The newest version by family: `GLIBC` → `2.27`. */
  readonly versions: Readonly<Record<string, string>>;
  readonly exports: readonly string[];
  /** Names without a version that somebody else must define. */
  readonly finds: readonly string[];
}

const run = (tool: string, ...args: string[]): string => execFileSync(tool, args, { encoding: 'utf8', maxBuffer: 64 << 20 });

/** Reads it with binutils; those for another processor's binaries have a prefix, `aarch64-linux-gnu-`. */
export function readNeeds(file: string, prefix = ''): Needs {
  const headers = run(`${prefix}objdump`, '-p', file);
  const libraries = [...headers.matchAll(/^\s+NEEDED\s+(\S+)/gm)].map((match) => match[1] as string);
  const versions: Record<string, string> = {};
  for (const [, family, version] of headers.matchAll(/^\s+0x[0-9a-f]+ 0x\w+ \d+ ([A-Z]+)_([\d.]+)$/gm) as Iterable<[string, string, string]>) {
    if (versions[family] === undefined || isNewer(version, versions[family])) versions[family] = version;
  }
  const names = run(`${prefix}nm`, '-D', '--with-symbol-versions', file).split('\n').map((line) => /^[0-9a-f ]* (\w) (\S+)$/.exec(line)).filter((match) => match !== null);
  const exports = names.filter(([, kind]) => /[TDBR]/.test(kind as string)).map((match) => match[2] as string);
  const finds = names.filter(([, kind, name]) => kind === 'U' && !(name as string).includes('@')).map((match) => match[2] as string);
  return { libraries, versions, exports, finds };
}

/** All that a binary offers and asks for, for reading. */
export function describeNeeds(file: string, prefix = ''): string {
  const { libraries, versions, exports } = readNeeds(file, prefix);
  const newest = Object.entries(versions).map(([family, version]) => `${family}_${version}`);
  const names = exports.filter((name) => !name.startsWith('LOWRANK_')); // the versions themselves are listed too
  return [
    `${path.basename(file)}, ${(statSync(file).size / 2 ** 20).toFixed(2)} MiB`,
    `  needs    ${libraries.join(' ')}`,
    `  newest   ${newest.join(' ')}`,
    `  exports  ${names.length}: ${names.join(' ')}`,
  ].join('\n');
}

export function isNewer(a: string, b: string): boolean {
  const [left, right] = [a, b].map((version) => version.split('.').map(Number)) as [number[], number[]];
  for (let i = 0; i < Math.max(left.length, right.length); i++) {
    const difference = (left[i] ?? 0) - (right[i] ?? 0);
    if (difference !== 0) return difference > 0;
  }
  return false;
}

/** What keeps a binary from being shipped, a line each. */
export function faultsOf({ exports, finds }: Pick<Binary, 'exports' | 'finds'>, needs: Needs): string[] {
  return [
    ...needs.libraries.filter((name) => !systemLibraries.test(name)).map((name) => `needs ${name}, which not every system has`),
    ...Object.entries(needs.versions).flatMap(([family, version]) => {
      const most = floor[family];
      if (most === undefined) return [`needs ${family}_${version}, a family that is not known here`];
      return isNewer(version, most) ? [`needs ${family}_${version}, above the floor of ${most}`] : [];
    }),
    ...needs.exports.filter((name) => !exports.test(name)).map((name) => `exports ${name}`),
    ...needs.finds.filter((name) => finds?.test(name) !== true).map((name) => `needs ${name}, which nothing defines`),
  ];
}
