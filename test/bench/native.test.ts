import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { startCallsFromC } from '../../src/cli/call-from-c.ts';
import { nearlyNothing } from '../../src/cli/call-work.ts';
import { findsProgram, hasLibrary, root } from '../capi/native.ts';

describe.skipIf(!hasLibrary || !findsProgram('c++', 'bench/native is not compiled'))('bench/native', () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'lowrank-bench-native-'));
  afterAll(() => rmSync(folder, { recursive: true }));

  it('a call through C is compiled against the library beside the addon, checks its result and is timed', async () => {
    const started = startCallsFromC();
    if ('why' in started) throw new Error(started.why);
    try {
      expect(await started.party(nearlyNothing, 1).sample(3)).toBeGreaterThan(0);
    } finally {
      await started.stop();
    }
  });

  it('without a compiler it is told that there is none', () => {
    expect(startCallsFromC('/nowhere/c++')).toEqual({ why: 'there is no C++ compiler /nowhere/c++' });
  });

  it.skipIf(!findsProgram('cmake', 'the kernels under Google Benchmark are not built'))('the kernels build under Google Benchmark, or it is told what to install', () => {
    const cmake = (...args: string[]) => spawnSync('cmake', args, { encoding: 'utf8' });
    const configured = cmake('-S', path.join(root, 'bench/native'), '-B', folder);
    expect(configured.status, configured.stderr).toBe(0);
    const { status, stdout, stderr } = cmake('--build', folder, '--target', 'kernels');
    if (status !== 0 && stdout.includes('libbenchmark-dev')) return console.warn('bench/native: kernels.cpp is not compiled, Google Benchmark is not installed (Debian: libbenchmark-dev)');
    expect(status, stdout + stderr).toBe(0);
    const listed = spawnSync(path.join(folder, 'kernels'), ['--benchmark_list_tests'], { encoding: 'utf8' });
    expect(listed.stdout.split('\n').length, listed.stderr).toBeGreaterThan(5);
  }, 180_000);
});
