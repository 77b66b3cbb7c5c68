// usage: gpu-report.ts VERB FILE...   Sums up what a stage of scripts/gpu-check.sh left behind, in one last line; status 1: not as it should be.
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { renderTable } from '../bench/table.ts';
import { openDevice, probeDevices } from '../src/device.ts';
import { addonFault } from '../src/native.ts';
import { benchSummary, deviceOf, parseStages, profileKernels, resultStem, sanitizerSummary, vitestSummary } from './gpu-results.ts';

const read = (file: string | undefined): string => (file !== undefined && existsSync(file) ? readFileSync(file, 'utf8') : '');

function say({ ok, line }: { ok: boolean; line: string }): void {
  console.log(line);
  process.exitCode = ok ? 0 : 1;
}

const verbs: Readonly<Record<string, (...files: string[]) => void | Promise<void>>> = {
  vitest: (file) => say(existsSync(file as string) ? vitestSummary(read(file)) : { ok: false, line: 'vitest wrote no report' }),
  sanitizer: (file) => say(sanitizerSummary(read(file))),
  bench: (file) => say({ ok: true, line: benchSummary(read(file)) }),
  ncu(file) {
    const kernels = profileKernels(read(file));
    console.log(renderTable(kernels.map((kernel) => ({ ...kernel }))));
    const bytes = kernels.reduce((sum, { megabytes }) => sum + megabytes, 0);
    say({ ok: kernels.length > 0, line: `${kernels.length} kernels, ${kernels.reduce((sum, { launches }) => sum + launches, 0)} launches, ${bytes.toFixed(0)} MB; longest: ${kernels[0]?.kernel ?? ''}` });
  },
  rates(file) {
    const rates = JSON.parse(read(file)) as { readonly rows: readonly Record<string, string | number>[]; readonly line: string };
    console.log(renderTable(rates.rows));
    say({ ok: true, line: rates.line });
  },
  /** Prints why there is no device to check, or nothing. */
  device() {
    const fault = addonFault();
    const { count, why } = fault === null ? probeDevices('cuda') : { count: 0, why: fault.message.split('\n')[0] ?? '' };
    if (count === 0) console.log(why);
  },
  async open() {
    const { count, why } = probeDevices('cuda');
    if (count === 0) {
      console.log(why);
      process.exitCode = 77;
      return;
    }
    await using device = await openDevice('cuda');
    const { name, kernels, memory, threads } = device.info;
    console.log(`${count} × ${name}, ${kernels}, ${(memory / 2 ** 30).toFixed(1)} GiB, ${threads} multiprocessors${why === '' ? '' : `; ${why}`}`);
  },
  collect,
};

/** One JSON of a whole check: `<device>-<date>.json`, as bench/results keeps it. */
function collect(out = '', results = '', deviceCsv = '', commit = ''): void {
  const device = deviceOf(read(deviceCsv));
  const date = new Date().toISOString().slice(0, 10);
  const kept = readdirSync(results).filter((name) => name.endsWith('.json')).sort();
  const record = {
    date, commit: commit === '' ? 'not known' : commit, device, node: process.version, stages: parseStages(read(path.join(out, 'stages.tsv'))),
    benches: Object.fromEntries(kept.map((name) => [name.slice(0, -5), parsed(read(path.join(results, name)))])),
    kernels: profileIn(path.join(out, 'ncu.csv')), stepKernels: profileIn(path.join(out, 'ncu-step.csv')),
  };
  const file = path.join(out, `${resultStem(device?.['name'] ?? 'no device', date)}.json`);
  writeFileSync(file, `${JSON.stringify(record, null, 2)}\n`);
  console.log(`written: ${file}`);
}

const profileIn = (file: string): unknown => (existsSync(file) ? attempt(() => profileKernels(read(file))) : null);
const parsed = (text: string): unknown => attempt(() => JSON.parse(text) as unknown);

/** A file that a stage was stopped in the middle of must not cost the others. */
function attempt<T>(body: () => T): T | string {
  try {
    return body();
  } catch (error) {
    return (error as Error).message;
  }
}

const [verb = '', ...files] = process.argv.slice(2);
const run = verbs[verb];
if (run === undefined) throw new Error(`gpu-report: the verb must be one of ${Object.keys(verbs).join(', ')} (found ${verb})`);
await run(...files);
