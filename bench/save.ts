import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import type { BenchContext, BenchResult } from './bench.ts';

const here = path.dirname(fileURLToPath(import.meta.url));

/** Writes bench/results/cpu-NAME-DATE.json (a second run of a day: -2), drawings beside it. Returns the file. */
export function saveResult(name: string, { tables, drawings = {} }: BenchResult, { device, peers, options: { shape } }: BenchContext): string {
  const folder = path.join(here, 'results');
  const date = new Date().toISOString().slice(0, 10);
  const git = (...args: string[]): string => execFileSync('git', args, { encoding: 'utf8', cwd: here }).trim();
  const commit = git('rev-parse', '--short', 'HEAD') + (git('status', '--porcelain', '--untracked-files=no') === '' ? '' : ', changed');
  const command = `npm run bench -- ${process.argv.slice(2).filter((argument) => !argument.includes('/')).join(' ')}`;
  const record = { bench: name, date, commit, command, node: process.version, machine: device.info, peers: peers?.versions ?? null, tables };
  mkdirSync(folder, { recursive: true });
  const stem = freeStem(folder, `${device.kind}-${name}${shape === null ? '' : `-${shape}`}-${date}`);
  for (const [ending, text] of Object.entries(drawings)) writeFileSync(path.join(folder, `${stem}.${ending}`), text);
  const file = path.join(folder, `${stem}.json`);
  writeFileSync(file, `${JSON.stringify(record, null, 2)}\n`);
  return path.relative(process.cwd(), file);
}

function freeStem(folder: string, stem: string): string {
  let free = stem;
  for (let run = 2; existsSync(path.join(folder, `${free}.json`)); run++) free = `${stem}-${run}`;
  return free;
}
