import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import type { BenchContext, BenchResult } from './bench.ts';

const here = path.dirname(fileURLToPath(import.meta.url));

/** What a bench found, with what is needed to judge it. */
export function recordOf(name: string, { tables }: BenchResult, { device, peers }: BenchContext): Readonly<Record<string, unknown>> {
  const command = `npm run bench -- ${process.argv.slice(2).filter((argument) => !argument.includes('/')).join(' ')}`;
  const date = new Date().toISOString().slice(0, 10);
  return { bench: name, date, commit: commit(), command, node: process.version, machine: device.info, peers: peers?.versions ?? null, tables };
}

/** Of the checkout; null where it is none, as on a machine that got a copy. */
function commit(): string | null {
  try {
    const git = (...args: string[]): string => execFileSync('git', args, { encoding: 'utf8', cwd: here, stdio: ['ignore', 'pipe', 'ignore'] }).trim();
    return git('rev-parse', '--short', 'HEAD') + (git('status', '--porcelain', '--untracked-files=no') === '' ? '' : ', changed');
  } catch {
    return null;
  }
}

export function writeRecord(file: string, record: Readonly<Record<string, unknown>>): void {
  mkdirSync(path.dirname(file), { recursive: true });
  writeFileSync(file, `${JSON.stringify(record, null, 2)}\n`);
}

/** Writes bench/results/DEVICE-NAME-DATE.json (a second run of a day: -2), drawings beside it. Returns the file. */
export function saveResult(name: string, result: BenchResult, context: BenchContext): string {
  const { device, options: { shape } } = context;
  const folder = path.join(here, 'results');
  const date = new Date().toISOString().slice(0, 10);
  mkdirSync(folder, { recursive: true });
  const stem = freeStem(folder, `${device.kind}-${name}${shape === null ? '' : `-${shape}`}-${date}`);
  for (const [ending, text] of Object.entries(result.drawings ?? {})) writeFileSync(path.join(folder, `${stem}.${ending}`), text);
  const file = path.join(folder, `${stem}.json`);
  writeRecord(file, recordOf(name, result, context));
  return path.relative(process.cwd(), file);
}

function freeStem(folder: string, stem: string): string {
  let free = stem;
  for (let run = 2; existsSync(path.join(folder, `${free}.json`)); run++) free = `${stem}-${run}`;
  return free;
}
