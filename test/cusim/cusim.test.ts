import { execFileSync, spawnSync } from 'node:child_process';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

const here = path.dirname(fileURLToPath(import.meta.url));
const build = path.resolve(here, '../../build/cusim');

interface Claim {
  readonly holds: boolean;
  readonly what: string;
  readonly evidence: string;
}

/** What the emulator's own tests claim, a line each: `ok` or `FAIL`, the claim, the evidence. */
function claimsOf(mode: 'fast' | 'checked'): Claim[] {
  const { stdout, stderr, signal } = spawnSync(path.join(build, `cusim_${mode}`), { encoding: 'utf8', timeout: 60_000 });
  const claims = stdout.split('\n').filter((line) => line !== '').map((line) => {
    const [word, what = '', evidence = ''] = line.split('\t');
    return { holds: word === 'ok', what, evidence };
  });
  const end: Claim = { holds: signal === null && claims.length > 20, what: 'the emulator runs to its end', evidence: `${signal ?? ''} ${stderr}` };
  return [...claims, end];
}

if (process.platform === 'linux' && process.arch === 'x64') {
  execFileSync('cmake', ['-S', here, '-B', build, '-DCMAKE_BUILD_TYPE=Release'], { stdio: ['ignore', 'ignore', 'inherit'] });
  execFileSync('cmake', ['--build', build], { stdio: ['ignore', 'ignore', 'inherit'] });
  describe.each(['fast', 'checked'] as const)('the CUDA emulator, %s', (mode) => {
    for (const { holds, what, evidence } of claimsOf(mode)) {
      it(what, () => expect(holds, evidence).toBe(true));
    }
  });
} else {
  console.warn('the CUDA emulator: not run (it switches fibers on x86-64 Linux only)');
  it.skip('the CUDA emulator', () => undefined);
}
