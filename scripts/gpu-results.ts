/** A line of stages.tsv, as scripts/gpu-check.sh writes it. */
export interface Stage {
  readonly stage: string;
  readonly result: string; // ok, failed, time, not run
  readonly rc: number | null;
  readonly seconds: number;
  readonly last: string;
}

/** @throws Error for a line that is not one of five columns */
export function parseStages(tsv: string): Stage[] {
  return tsv.split('\n').filter((line) => line !== '').map((line) => {
    const [stage, result, rc, seconds, last, more] = line.split('\t');
    if (stage === undefined || result === undefined || last === undefined || more !== undefined) throw new Error(`stages.tsv: a line must have five columns (found ${line})`);
    return { stage, result, rc: rc === '-' ? null : Number(rc), seconds: Number(seconds), last };
  });
}

/** What vitest's JSON reporter writes, as far as it is needed. */
interface VitestReport {
  readonly numPassedTests: number;
  readonly numFailedTests: number;
  readonly testResults: readonly { readonly status?: string; readonly message?: string; readonly assertionResults: readonly { readonly status: string; readonly fullName: string; readonly failureMessages: readonly string[] | null }[] }[];
}

/** How many passed and failed, and the first that failed with the first line of why, in one line. `ok` is false without a test. */
export function vitestSummary(json: string): { ok: boolean; line: string } {
  const { numPassedTests: passed, numFailedTests: failed, testResults } = JSON.parse(json) as VitestReport;
  const tests = testResults.flatMap(({ assertionResults }) => assertionResults);
  const skipped = tests.filter(({ status }) => status === 'skipped').length;
  const first = tests.find(({ status }) => status === 'failed');
  // Files that failed without a test that did: one could not be read, or a device not be opened before its tests.
  const broken = testResults.filter(({ status, assertionResults }) => status === 'failed' && assertionResults.every((test) => test.status !== 'failed'));
  const begun = broken.length === 0 ? '' : `${broken.length} files could not begin some of their tests ${broken[0]?.message ?? ''}`.trim();
  const why = first === undefined ? begun : `${first.fullName}: ${first.failureMessages?.[0] ?? ''}`;
  const line = `${passed} passed, ${failed} failed, ${skipped} not among those wanted or skipped${why === '' ? '' : `; ${why.split('\n')[0]}`}`;
  return { ok: passed > 0 && failed === 0 && broken.length === 0, line };
}

/** A bench's tables in one line: of each row the first column and two that follow. */
export function benchSummary(json: string): string {
  const { tables } = JSON.parse(json) as { readonly tables: Readonly<Record<string, readonly Readonly<Record<string, string | number | null>>[]>> };
  const short = (row: Readonly<Record<string, string | number | null>>): string =>
    Object.entries(row).slice(0, 3).map(([column, value], i) => (i === 0 ? String(value) : `${column} ${String(value)}`)).join(', ');
  return Object.values(tables).flat().map(short).join('; ');
}

/** The tool's own last words, and how often each kind of complaint came. `ok` only where it says that there were none. */
export function sanitizerSummary(log: string): { ok: boolean; line: string } {
  const lines = log.split('\n').map((line) => line.replace(/^=+\s*/, '').trim());
  const summaries = lines.filter((line) => /SUMMARY:/.test(line));
  if (summaries.length === 0) {
    const why = lines.find((line) => /error|not supported/i.test(line)) ?? lines.filter((line) => line !== '').at(-1) ?? 'it wrote nothing at all';
    return { ok: false, line: `the tool wrote no summary: ${why}` };
  }
  const complaints = new Map<string, number>();
  for (const line of lines) {
    const kind = /^((Invalid|Uninitialized|Barrier|Error: (Potential|Race)|Warning: Race|Program hit|Misaligned|Out-of-range|Host API)\b.*)$/.exec(line)?.[1];
    if (kind !== undefined) complaints.set(kind.replace(/0x[0-9a-f]+/g, '…'), (complaints.get(kind.replace(/0x[0-9a-f]+/g, '…')) ?? 0) + 1);
  }
  const kinds = [...complaints].map(([kind, times]) => `${times} × ${kind}`).join('; ');
  return { ok: summaries.every((line) => /SUMMARY: 0 (errors|hazards)/.test(line)), line: `${[...new Set(summaries)].join(', ')}${kinds === '' ? '' : `: ${kinds}`}` };
}

/** What ncu measured of all launches of a kernel. */
export interface KernelProfile {
  readonly kernel: string;
  readonly launches: number;
  readonly microseconds: number; // of all launches
  readonly megabytes: number; // to and from device memory
  readonly gigabytesPerSecond: number;
  /** Time-weighted percent of what the multiprocessors and their warp slots can do. */
  readonly sm: number;
  readonly warps: number;
}

const unitFactor: Readonly<Record<string, number>> = {
  ns: 1e-9, nsecond: 1e-9, us: 1e-6, usecond: 1e-6, ms: 1e-3, msecond: 1e-3, s: 1, second: 1, byte: 1, Kbyte: 1e3, Mbyte: 1e6, Gbyte: 1e9, '%': 1,
};

/** Sums ncu's `--csv` (a line per launch and metric, notes before the head) by kernel, longest first. Names lose their arguments. */
export function profileKernels(csv: string): KernelProfile[] {
  const rows = csv.split('\n').filter((line) => line.startsWith('"')).map(splitCsv);
  const head = rows[0] ?? [];
  const column = (name: string): number => {
    const at = head.indexOf(name);
    if (at < 0) throw new Error(`ncu: the table must have a column ${name} (found ${head.join(', ') || 'no table'})`);
    return at;
  };
  const [id, kernel, metric, unit, value] = ['ID', 'Kernel Name', 'Metric Name', 'Metric Unit', 'Metric Value'].map(column) as [number, number, number, number, number];
  const launches = new Map<string, { kernel: string; of: Record<string, number> }>();
  for (const row of rows.slice(1)) {
    const launch = launches.get(row[id] ?? '') ?? { kernel: (row[kernel] ?? '').replace(/\(.*$/s, '').replace(/^void /, ''), of: {} };
    launch.of[row[metric] ?? ''] = Number((row[value] ?? '').replace(/,/g, '')) * (unitFactor[row[unit] ?? ''] ?? 1);
    launches.set(row[id] ?? '', launch);
  }
  const names = [...new Set([...launches.values()].map((launch) => launch.kernel))];
  return names.map((name) => sumLaunches(name, [...launches.values()].filter((launch) => launch.kernel === name).map(({ of }) => of))).sort((a, b) => b.microseconds - a.microseconds);
}

function sumLaunches(kernel: string, launches: readonly Readonly<Record<string, number>>[]): KernelProfile {
  const sum = (value: (of: Readonly<Record<string, number>>) => number): number => launches.reduce((total, of) => total + value(of), 0);
  const time = (of: Readonly<Record<string, number>>): number => of['gpu__time_duration.sum'] ?? NaN;
  const seconds = sum(time);
  const bytes = sum((of) => (of['dram__bytes_read.sum'] ?? NaN) + (of['dram__bytes_write.sum'] ?? NaN));
  const weighted = (metric: string): number => Number((sum((of) => (of[metric] ?? NaN) * time(of)) / seconds).toFixed(1));
  return {
    kernel, launches: launches.length, microseconds: Number((seconds * 1e6).toFixed(1)), megabytes: Number((bytes / 1e6).toFixed(1)),
    gigabytesPerSecond: Number((bytes / seconds / 1e9).toFixed(0)),
    sm: weighted('sm__throughput.avg.pct_of_peak_sustained_elapsed'), warps: weighted('sm__warps_active.avg.pct_of_peak_sustained_active'),
  };
}

function splitCsv(line: string): string[] {
  return [...line.matchAll(/"((?:[^"]|"")*)"/g)].map((match) => (match[1] as string).replace(/""/g, '"'));
}

/** What nvidia-smi said of the device: name, driver, memory, compute capability, clocks, temperature, power limit; null without one. */
export function deviceOf(csv: string): Readonly<Record<string, string>> | null {
  const [line = ''] = csv.split('\n');
  if (line.trim() === '') return null;
  const keys = ['name', 'driver', 'memory', 'computeCapability', 'smClock', 'memoryClock', 'temperature', 'powerLimit'];
  return Object.fromEntries(line.split(',').map((value, i) => [keys[i] ?? `field${i}`, value.trim()]));
}

/** `nvidia-h100-80gb-hbm3-2026-11-24`: the stem of a results file. */
export function resultStem(device: string, date: string): string {
  return `${device.toLowerCase().replace(/[^a-z0-9]+/g, '-').replace(/^-|-$/g, '')}-${date}`;
}
