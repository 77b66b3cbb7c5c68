import { existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { compileC, emulate, missingTools, node, release, root, runOnNode } from '../scripts/aarch64/cross.ts';
import { embedGoldens, expectSteps } from './embed-steps.ts';

// Half an hour on an emulated processor: npm run check:aarch64 asks for it.
const wanted = process.env['LOWRANK_TEST_AARCH64'] === '1' && missingTools().length === 0 && existsSync(path.join(release, 'lowrank.node')) && existsSync(node);
if (!wanted) console.warn('64-bit Arm: not tested (npm run check:aarch64 does)');

/** What Node's runner says at the end: `# pass 12`. */
const countOf = (tap: string, what: 'pass' | 'fail'): number => Number(new RegExp(`^# ${what} (\\d+)$`, 'm').exec(tap)?.[1] ?? NaN);
const failures = (tap: string): string[] => [...tap.matchAll(/^ *not ok \d+ - (.*)$|^ *error: (.*)$/gm)].map(([, name, error]) => name ?? error ?? '');

const ops = readdirSync(path.join(root, 'test/ops')).filter((file) => file.endsWith('.test.ts')).map((file) => `test/ops/${file}`);
const cases = process.env['LOWRANK_PARITY_CASES'] ?? '12';

describe.skipIf(!wanted)('on an emulated 64-bit Arm', () => {
  let folder: string;
  beforeAll(() => void (folder = mkdtempSync(path.join(tmpdir(), 'lowrank-aarch64-'))));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  it("the C example comes to PEFT's losses and gradient norms", () => {
    expectSteps(emulate(compileC('examples/embed-c/train.c', path.join(folder, 'train'))), embedGoldens.layer);
  });

  it('the C library keeps its promises', () => {
    const output = emulate(compileC('test/capi/checks.c', path.join(folder, 'checks')));
    expect(output.match(/^FAILED .*/gm)).toBeNull();
    expect(output.match(/^ok /gm)?.length).toBeGreaterThan(5);
  });

  it("the TypeScript example comes to PEFT's losses and gradient norms", async () => {
    expectSteps(await runOnNode('examples/embed-typescript/train.ts'), embedGoldens.mlp);
  });

  it.each([...ops, 'test/train/goldens.test.ts', 'test/optim/adamw.test.ts'])('%s passes', { timeout: 1_800_000 }, async (file) => {
    const tap = await runOnNode(file, { LOWRANK_PARITY_CASES: cases });
    expect(failures(tap)).toEqual([]);
    expect(countOf(tap, 'fail')).toBe(0);
    expect(countOf(tap, 'pass')).toBeGreaterThan(2);
    console.log(`${file}: ${countOf(tap, 'pass')} passed`);
  });
});
