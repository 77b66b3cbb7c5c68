import { execFile } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { examplesOf, faultsOf, root, sourceFiles, type Example } from './examples.ts';

const pages = ['README.md', 'ARCHITECTURE.md', 'CONTRIBUTING.md', 'demo/README.md'];
const examples = [...pages, ...sourceFiles()].flatMap(examplesOf);
/** Those that open their own device run as they stand. */
const whole = examples.filter(({ code }) => code.includes('await openDevice('));

describe('examples in doc comments and on pages', () => {
  it('are found: the README has one, and so have most rooms', () => {
    const rooms = new Set(examples.map(({ file }) => path.dirname(file)));
    expect([...rooms]).toEqual(expect.arrayContaining(['.', 'src', 'src/data', 'src/generation', 'src/io', 'src/lora', 'src/models', 'src/ops', 'src/optim', 'src/train']));
    expect(whole.length).toBeGreaterThan(5);
  });

  it('compile as strictly as the project', () => {
    expect(faultsOf(examples)).toEqual([]);
  }, 180_000);

  it('a wrong one is told with its place', () => {
    const wrong: Example = { at: 'page.md:1', file: 'src/index.ts', code: "const rate: string = schedule('linear', { lr: 1, steps: 2 })(0);\nnobodyKnows();" };
    expect(faultsOf([wrong])).toEqual(["page.md:1: Type 'number' is not assignable to type 'string'.", "page.md:1: Cannot find name 'nobodyKnows'."]);
  }, 180_000);
});

/** By its file, since the examples run in a folder that has no packages. */
const loader = pathToFileURL(createRequire(import.meta.url).resolve('tsx')).href;

describe('examples that open their own device', () => {
  let folder: string;
  // The names that the examples use: a model folder, and rows to train on. Few rows, so that the README's 100 steps are short.
  beforeAll(() => {
    folder = mkdtempSync(path.join(tmpdir(), 'lowrank-examples-'));
    symlinkSync(path.join(root, 'demo/base'), path.join(folder, 'SmolLM-135M'));
    const rows = readFileSync(path.join(root, 'demo/data/heldout.jsonl'), 'utf8').split('\n').slice(0, 2);
    writeFileSync(path.join(folder, 'train.jsonl'), rows.join('\n'));
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  it.each(whole)('$at runs', async ({ at, code }) => {
    const file = path.join(folder, `${at.replace(/\W/g, '-')}.mts`);
    writeFileSync(file, code.replaceAll("'lowrank'", `'${pathToFileURL(path.join(root, 'src/index.ts')).href}'`));
    await promisify(execFile)(process.execPath, ['--import', loader, file], { cwd: folder });
  }, 120_000);

  it("the README's script leaves an adapter folder", () => {
    const config = JSON.parse(readFileSync(path.join(folder, 'out/adapter_config.json'), 'utf8')) as { r: number };
    expect(config.r).toBe(16);
  });
});
