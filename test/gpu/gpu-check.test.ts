import { spawnSync } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { benchSummary, deviceOf, parseStages, profileKernels, resultStem, sanitizerSummary, vitestSummary } from '../../scripts/gpu-results.ts';
import { packageFolders } from '../../scripts/package-folders.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
const script = path.join(root, 'scripts/gpu-check.sh');
const hasBash = spawnSync('bash', ['-c', 'command -v timeout awk tar']).status === 0;
if (!hasBash) console.warn('gpu-check.sh: not tested (bash, timeout, awk or tar is not here)');

let work: string;
beforeEach(() => void (work = mkdtempSync(path.join(tmpdir(), 'lowrank-gpu-check-'))));
afterEach(() => rmSync(work, { recursive: true }));

/** Runs the script with a work folder of its own and, in front of the path, programs of a few lines. */
function check(stages: string, { programs = {}, env = {}, from = script }: { programs?: Record<string, string>; env?: Record<string, string>; from?: string } = {}) {
  const bin = path.join(work, 'programs');
  mkdirSync(bin, { recursive: true });
  for (const [name, body] of Object.entries(programs)) {
    writeFileSync(path.join(bin, name), `#!/bin/sh\n${body}\n`);
    chmodSync(path.join(bin, name), 0o755);
  }
  const variables = { ...process.env, PATH: `${bin}:${process.env['PATH']}`, GPU_CHECK_WORK: path.join(work, 'w'), OUT: path.join(work, 'out'), ...env };
  const { status, stdout, stderr } = spawnSync('bash', [from, stages], { encoding: 'utf8', env: variables, cwd: root, timeout: 30_000 });
  const table = path.join(work, 'out/stages.tsv');
  return { status, stdout, stderr, rows: existsSync(table) ? parseStages(readFileSync(table, 'utf8')) : [] };
}

const device = 'NVIDIA Fake 100, 580.1, 81559 MiB, 9.0, 345 MHz, 2619 MHz, 30, 700.00 W';
const smi = `case "$*" in *--query-gpu*) echo '${device}' ;; *) echo table ;; esac`;
const noNode = { node: 'exit 9' }; // collecting costs a second, and is not what is asked here

describe.skipIf(!hasBash)('gpu-check.sh', () => {
  it('is bash without a fault of syntax', () => {
    expect(spawnSync('bash', ['-n', script], { encoding: 'utf8' })).toMatchObject({ status: 0, stderr: '' });
  });

  /** Names and seconds of a list's stages, in order. */
  const stagesOf = (list: string): (readonly [name: string, seconds: number])[] =>
    check('list').stdout.trim().split('\n').map((line) => line.trim().split(/\s+/)).filter(([, , which]) => which === list).map(([name, seconds]) => [name as string, Number(seconds)]);

  it.each([['full', 15], ['second', 7]])('the limits of the list `%s` add up to less than ten minutes, with what unpacking takes', (list, count) => {
    const stages = stagesOf(list);
    expect(stages).toHaveLength(count);
    const seconds = stages.reduce((sum, [, limit]) => sum + limit, 0);
    expect(seconds).toBeGreaterThan(400);
    expect(seconds + 40).toBeLessThanOrEqual(575); // unpacking, GPU_CHECK_SECONDS
  });

  it('asks in one call first whether all is right, then how fast it is; sanitizers, compiled peers and the timeline of a step have a call of their own, a minute and more each', () => {
    const names = stagesOf('full').map(([name]) => name);
    expect(names.slice(0, names.indexOf('rates'))).toEqual(['facts', 'load', 'parity', 'parity-own', 'peft', 'paging', 'capi']);
    expect(names).toEqual(expect.arrayContaining(['block', 'step', 'stream', 'ncu', 'layer', 'skinny', 'attention']));
    const second = stagesOf('second');
    expect(second.map(([name]) => name)).toEqual(expect.arrayContaining(['memcheck', 'racecheck', 'synccheck', 'initcheck', 'step-compiled', 'ncu-step', 'timeline']));
    for (const [name, seconds] of second) expect(seconds, name).toBeGreaterThanOrEqual(60);
  });

  /** Every program says how it was called; what asks for the device finds nothing wrong. */
  const said = (tool: string): string => `case "$*" in *gpu-report.ts*) exit 9 ;; *) echo "${tool} LT=$LOWRANK_CUBLASLT ON=$LOWRANK_TEST_DEVICE $*" ;; esac`;
  const logOf = (stages: string): string => {
    check(stages, { programs: { node: said('node'), 'compute-sanitizer': said('sanitizer'), ncu: said('ncu') }, env: { LOWRANK_CUBLASLT: '/lt.so', LOWRANK_PEERS_PYTHON: '' } });
    return readFileSync(path.join(work, 'out/gpu-check.log'), 'utf8');
  };

  it("the own products are asked for by parity-own and under every sanitizer, cublasLt's by parity", () => {
    const log = logOf('parity,parity-own,memcheck,racecheck,synccheck,initcheck');
    expect(log).toMatch(/node LT=\/lt\.so .*test\/ops -t {2}on cuda /);
    expect(log).toMatch(/node LT=off .*test\/ops\/linear\.test\.ts test\/ops\/lora_linear\.test\.ts test\/ops\/gated_mlp\.test\.ts test\/ops\/linear_cross_entropy\.test\.ts -t {2}on cuda /);
    for (const tool of ['memcheck', 'racecheck', 'synccheck', 'initcheck']) expect(log).toMatch(new RegExp(`sanitizer LT=off .*--tool ${tool} `));
  });

  it('what the emulator is asked otherwise is asked of the GPU: runs of PEFT, weights that take turns', () => {
    const log = logOf('peft,paging');
    expect(log).toMatch(/ON=cuda .*test\/run\/peft-parity\.test\.ts test\/run\/peft-emulated\.test\.ts test\/peers test\/cusim\/graphs\.test\.ts/);
    expect(log).toMatch(/ON=cuda .*test\/cusim\/weight-memory\.test\.ts test\/cusim\/whole-model\.test\.ts test\/cusim\/frozen-weights\.test\.ts test\/cusim\/auto-weight-memory\.test\.ts/);
  });

  it('a profile of a step counts our kernels alone', () => {
    expect(logOf('ncu,ncu-step')).toMatch(/ncu-step\.csv --kernel-name-base demangled --kernel-name regex:\.\*lowrank::\.\* node --import tsx bench\/cuda\/step-once\.ts cuda/);
  });

  it('a profile of a layer is without dropout, unless asked for', () => {
    const log = logOf('ncu,ncu-dropout');
    expect(log).toMatch(/ncu\.csv node --import tsx bench\/cuda\/once\.ts cuda 0\n/);
    expect(log).toMatch(/ncu-dropout\.csv node --import tsx bench\/cuda\/once\.ts cuda 0\.1\n/);
  });

  it('refuses a stage that there is not, and names those that there are', () => {
    const { status, stdout } = check('facts,partiy');
    expect([status, stdout]).toEqual([2, expect.stringContaining('(found partiy)\nfacts ')]);
  });

  it('a machine with a GPU: its facts are a row, and a missing tool is named there', () => {
    const { rows, stdout } = check('facts', { programs: { ...noNode, 'nvidia-smi': smi } });
    expect(rows).toEqual([{ stage: 'facts', result: 'ok', rc: 0, seconds: expect.any(Number) as number, last: expect.stringContaining(`${device}; not here:`) as string }]);
    expect(stdout.trim().split('\n').at(-1)).toMatch(/^facts +ok +0 +\d+\.\d s {2}NVIDIA Fake 100/);
    expect(readFileSync(path.join(work, 'out/gpu-check.log'), 'utf8')).toContain('=== facts: ok');
  });

  it('one that fails or takes too long stops no other, and the status tells', () => {
    const slow = { ...noNode, 'nvidia-smi': 'sleep 5' };
    const { rows, status } = check('facts=1,load,facts=1', { programs: slow });
    expect(rows.map(({ stage, result }) => [stage, result])).toEqual([['facts', 'time'], ['load', 'failed'], ['facts', 'time']]);
    expect(rows[0]?.last).toMatch(/^stopped after 1 s; before: /);
    expect(status).toBe(1);
  });

  it('what no time is left for is told, not begun', () => {
    const { rows } = check('facts,load', { programs: { ...noNode, 'nvidia-smi': smi }, env: { GPU_CHECK_SECONDS: '2' } });
    expect(rows.map(({ result, last }) => [result, last])).toEqual([['not run', 'no time is left of 2 s'], ['not run', 'no time is left of 2 s']]);
  });

  it('packed, without what should have been packed: says what is missing', () => {
    mkdirSync(path.join(work, '.gpu'));
    const from = path.join(work, '.gpu/run.sh');
    writeFileSync(from, readFileSync(script));
    const { rows } = check('facts', { programs: { 'nvidia-smi': smi }, from });
    expect(rows.map(({ stage, result }) => [stage, result])).toEqual([['unpack', 'failed'], ['facts', 'failed']]);
    expect(rows[0]?.last).toContain('must hold node, modules and build: npm run gpu:check');
  });
});

describe('what the stages left', () => {
  it('a table of five columns is read; another is refused', () => {
    expect(parseStages('a\tok\t0\t1.5\tlast\nb\tnot run\t-\t0\twhy\n')).toEqual([
      { stage: 'a', result: 'ok', rc: 0, seconds: 1.5, last: 'last' }, { stage: 'b', result: 'not run', rc: null, seconds: 0, last: 'why' },
    ]);
    expect(() => parseStages('a\tok\t0\n')).toThrow('five columns (found a\tok\t0)');
  });

  it('vitest: counts, and the first failure; no test at all is no success', () => {
    const test = (status: string, failureMessages: string[] = []) => ({ status, fullName: `op ${status}`, failureMessages });
    const report = (...tests: ReturnType<typeof test>[]): string => JSON.stringify({
      numPassedTests: tests.filter(({ status }) => status === 'passed').length, numFailedTests: tests.filter(({ status }) => status === 'failed').length,
      testResults: [{ message: '', assertionResults: tests }],
    });
    expect(vitestSummary(report(test('passed'), test('skipped')))).toEqual({ ok: true, line: '1 passed, 0 failed, 1 not among those wanted or skipped' });
    expect(vitestSummary(report(test('passed'), test('failed', ['Error: off by 3\n  at x'])))).toEqual({ ok: false, line: expect.stringMatching(/1 failed.*; op failed: Error: off by 3$/) as string });
    expect(vitestSummary(report(test('skipped'))).ok).toBe(false);
    const closed = JSON.stringify({ numPassedTests: 5, numFailedTests: 0, testResults: [{ status: 'failed', message: '', assertionResults: [test('skipped')] }] });
    expect(vitestSummary(closed)).toEqual({ ok: false, line: expect.stringMatching(/; 1 files could not begin some of their tests$/) as string });
  });

  it('a bench: each row by what it is called and two of its figures', () => {
    expect(benchSummary(JSON.stringify({ tables: { a: [{ who: 'us', ms: 3, 'GB/s': 2, more: 1 }], b: [{ who: 'them', ms: null }] } }))).toBe('us, ms 3, GB/s 2; them, ms null');
  });

  const prefix = '========= ';
  it.each([
    { tool: 'memcheck, silent', log: ['COMPUTE-SANITIZER', 'ERROR SUMMARY: 0 errors'], ok: true, says: 'ERROR SUMMARY: 0 errors' },
    { tool: 'racecheck, silent', log: ['RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)'], ok: true, says: '0 hazards' },
    { tool: 'memcheck', log: ['Invalid __global__ read of size 4 bytes', '    at k(float*)+0x50', 'Invalid __global__ read of size 4 bytes', 'ERROR SUMMARY: 2 errors'], ok: false, says: 'ERROR SUMMARY: 2 errors: 2 × Invalid __global__ read of size 4 bytes' },
    { tool: 'a tool that does not run', log: ['COMPUTE-SANITIZER', 'Error: Device not supported. Please refer to the documentation.', ''], ok: false, says: 'the tool wrote no summary: Error: Device not supported' },
  ])("compute-sanitizer's words are summed up: $tool", ({ log, ok, says }) => {
    const found = sanitizerSummary(log.map((line) => `${prefix}${line}\n`).join(''));
    expect(found.ok).toBe(ok);
    expect(found.line).toContain(says);
  });

  it("ncu's lines are summed up by kernel: bytes, times, rates", () => {
    const head = ['ID', 'Process ID', 'Kernel Name', 'Metric Name', 'Metric Unit', 'Metric Value'];
    const launch = (id: number, kernel: string, ns: number, read: string): string[][] => [
      ['gpu__time_duration.sum', 'nsecond', `${ns}`], ['dram__bytes_read.sum', 'byte', read], ['dram__bytes_write.sum', 'byte', '0'],
      ['sm__throughput.avg.pct_of_peak_sustained_elapsed', '%', `${id}`], ['sm__warps_active.avg.pct_of_peak_sustained_active', '%', '50'],
    ].map((metric) => [`${id}`, '7', kernel, ...metric]);
    const rows = [head, ...launch(0, 'void lowrank::u<__nv, 4>(const float *, "x")', 1000, '3,000,000'), ...launch(1, 'void lowrank::u<__nv, 4>(const float *, "x")', 1000, '3,000,000'), ...launch(2, 'lowrank::copy(int)', 500, '1')];
    const csv = rows.map((row) => row.map((cell) => `"${cell.replace(/"/g, '""')}"`).join(',')).join('\n');
    expect(profileKernels(`==PROF== Connected\n${csv}\n`)).toEqual([
      { kernel: 'lowrank::u<__nv, 4>', launches: 2, microseconds: 2, megabytes: 6, gigabytesPerSecond: 3000, sm: 0.5, warps: 50 },
      { kernel: 'lowrank::copy', launches: 1, microseconds: 0.5, megabytes: 0, gigabytesPerSecond: 0, sm: 2, warps: 50 },
    ]);
    expect(() => profileKernels('==ERROR== no permission')).toThrow('ncu: the table must have a column ID (found no table)');
  });

  it('the record is named by device and date', () => {
    expect(deviceOf(device)).toMatchObject({ name: 'NVIDIA Fake 100', driver: '580.1', computeCapability: '9.0' });
    expect(deviceOf('')).toBeNull();
    expect(resultStem('NVIDIA H100 80GB HBM3', '2026-11-24')).toBe('nvidia-h100-80gb-hbm3-2026-11-24');
  });
});

describe('what is packed', () => {
  it('packages with all that they need, where npm put them, and nothing that was not installed', () => {
    const lock = {
      packages: {
        'node_modules/a': { dependencies: { b: '1' }, optionalDependencies: { other: '1' } },
        'node_modules/a/node_modules/b': { dependencies: { c: '1' } },
        'node_modules/b': {}, 'node_modules/c': { dependencies: { a: '1' } }, 'node_modules/other': {}, 'node_modules/unused': {},
      },
    };
    expect(packageFolders(lock, ['a'], (folder) => !folder.endsWith('other'))).toEqual(['node_modules/a', 'node_modules/c']);
    expect(packageFolders(lock, ['b', 'absent'], () => true)).toEqual(['node_modules/b']);
  });
});
