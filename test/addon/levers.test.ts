import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';
import { probeDevices } from '../../src/device.ts';

const child = fileURLToPath(new URL('levers.child.mjs', import.meta.url));

function run(variables: Record<string, string>, ...device: string[]): string[] {
  return JSON.parse(execFileSync(process.execPath, [child, ...device], { encoding: 'utf8', env: { ...process.env, ...variables } })) as string[];
}

it('with no lever set nothing is scanned and nothing waits', () => {
  expect(run({})).toEqual(['add: fine', 'embedding throws at the call: false']);
});

it('LOWRANK_CHECK=nan names the first output that is not finite', () => {
  expect(run({ LOWRANK_CHECK: 'nan' })[0]).toBe('add: ERR_NONFINITE add: y is not finite at element 1 (LOWRANK_CHECK=nan)');
});

it.skipIf(probeDevices('cusim').count === 0)('LOWRANK_CHECK=nan finds it in the memory of another device too, whatever the dtype, and only there', () => {
  expect(run({ LOWRANK_CHECK: 'nan' }, 'cusim').slice(0, 2)).toEqual([
    'add: ERR_NONFINITE add: y is not finite at element 1 (LOWRANK_CHECK=nan)',
    'copy in bf16: ERR_NONFINITE copy: y is not finite at element 3 (LOWRANK_CHECK=nan)',
  ]);
});

it("LOWRANK_SYNC=1 throws at the caller's line", () => {
  expect(run({ LOWRANK_SYNC: '1' })[1]).toBe('embedding throws at the call: true');
});

it('LOWRANK_TRACE writes one event per op, as JSON', () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'lowrank-trace-'));
  const file = path.join(folder, 'trace.json');
  run({ LOWRANK_TRACE: file });
  const events = (JSON.parse(readFileSync(file, 'utf8')) as { name?: string; dur?: number; args?: { shapes: string } }[]).filter((event) => event.name !== undefined);
  expect(events.map((event) => event.name)).toEqual(['add', 'embedding']);
  expect(events[0]).toMatchObject({ args: { shapes: 'y [3], a [3], b [3]' }, dur: expect.any(Number) });
  rmSync(folder, { recursive: true });
});

it('LOWRANK_ISA with an unknown table is refused with the tables there are', () => {
  expect(() => execFileSync(process.execPath, [child], { encoding: 'utf8', env: { ...process.env, LOWRANK_ISA: 'v9' }, stdio: 'pipe' })).toThrow(/LOWRANK_ISA must name a kernel table of this build/);
});

it('LOWRANK_AMX refuses what it does not know', () => {
  expect(() => execFileSync(process.execPath, [child], { encoding: 'utf8', env: { ...process.env, LOWRANK_AMX: 'on' }, stdio: 'pipe' })).toThrow(/LOWRANK_AMX must be off or emulated \(found on\)/);
});

it('LOWRANK_PLAN=1 tells of each product once, and nothing is told without it', () => {
  const script = fileURLToPath(new URL('plan.child.mjs', import.meta.url));
  const told = (plan: string): string[] => spawnSync(process.execPath, [script], { encoding: 'utf8', env: { ...process.env, LOWRANK_PLAN: plan } }).stderr.split('\n').filter((line) => line.startsWith('gemm'));
  expect(told('1')).toEqual([expect.stringMatching(/^gemm 40x16x24, f32: tile \d+x\d+, 1 turns of 40 rows/), expect.stringMatching(/^gemm 50x16x24, f32/)]);
  expect(told('0')).toEqual([]);
});
