import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

const here = path.dirname(fileURLToPath(import.meta.url));
const build = path.resolve(here, '../../build/cusim');
const release = path.resolve(here, '../../build/Release');

interface Claim {
  readonly holds: boolean;
  readonly what: string;
  readonly evidence: string;
}

/** What a program of tests claims, a line each: `ok` or `FAIL`, the claim, the evidence. */
function claimsOf(program: string): Claim[] {
  const { stdout, stderr, signal } = spawnSync(program, { encoding: 'utf8', timeout: 180_000 });
  const claims = stdout.split('\n').filter((line) => line !== '').map((line) => {
    const [word, what = '', evidence = ''] = line.split('\t');
    return { holds: word === 'ok', what, evidence };
  });
  const end: Claim = { holds: signal === null && claims.length > 20, what: 'the program runs to its end', evidence: `${signal ?? ''} ${stderr}` };
  return [...claims, end];
}

/** Which planted defects were found, in how many schedules, and what was said first. */
function tableOf(claims: readonly Claim[]): string {
  const rows = claims.filter(({ what }) => what.startsWith('found: ')).map(({ what, evidence }) => {
    const [, schedules = '', first = evidence] = /^(\d+ of \d+) schedules.*?first: (.*)$/.exec(evidence) ?? [];
    return [what.slice('found: '.length), schedules, first.replace(/^cusim: /, '').replace(/\S*\/(\w+\.\w+)/g, '$1')] as const;
  });
  const width = Math.max(...rows.map(([what]) => what.length));
  return rows.map(([what, schedules, first]) => `${what.padEnd(width)}  ${schedules.padStart(8)}  ${first.slice(0, 180)}`).join('\n');
}

if (process.platform === 'linux' && process.arch === 'x64') {
  execFileSync('cmake', ['-S', here, '-B', build, '-DCMAKE_BUILD_TYPE=Release'], { stdio: ['ignore', 'ignore', 'inherit'] });
  execFileSync('cmake', ['--build', build], { stdio: ['ignore', 'ignore', 'inherit'] });
  const programs = [path.join(build, 'cusim_fast'), path.join(build, 'cusim_checked'), path.join(release, 'cusim_kernels_fast'), path.join(release, 'cusim_kernels_checked')];
  describe.each(programs.filter(existsSync))('%s', (program) => {
    const claims = claimsOf(program);
    if (program.endsWith('cusim_checked')) console.log(`planted defects, schedules in which each was found, and the first report:\n${tableOf(claims)}`);
    for (const { holds, what, evidence } of claims) {
      it(what, () => expect(holds, evidence).toBe(true));
    }
  });
} else {
  console.warn('the CUDA emulator: not run (it switches fibers on x86-64 Linux only)');
  it.skip('the CUDA emulator', () => undefined);
}
