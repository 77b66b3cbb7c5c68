import { execFile } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { complete, examplesOf, root, sourceFiles, textOf, type Complete, type Example } from './examples.ts';

const pages = ['README.md', 'ARCHITECTURE.md', 'CONTRIBUTING.md', 'demo/README.md'];
const examples = [...pages, ...sourceFiles()].flatMap(examplesOf);
const wrong: Example = { at: 'page.md:1', file: 'src/index.ts', code: "const rate: string = schedule('linear', { lr: 1, steps: 2 })(0);\nnobodyKnows();" };

describe('examples in doc comments and on pages', () => {
  let folder: string;
  let faults: readonly string[];
  let results: Readonly<Record<string, string | null>>;
  beforeAll(async () => {
    folder = mkdtempSync(path.join(tmpdir(), 'lowrank-examples-'));
    const completed = complete([...examples, wrong]);
    faults = completed.faults;
    results = await runAll(folder, completed.whole.filter(({ at }) => at !== wrong.at));
  }, 180_000);
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  it('are found: the README has one, and so have most rooms', () => {
    const rooms = new Set(examples.map(({ file }) => path.dirname(file)));
    expect([...rooms]).toEqual(expect.arrayContaining(['.', 'src', 'src/data', 'src/generation', 'src/io', 'src/lora', 'src/models', 'src/ops', 'src/optim', 'src/train']));
  });

  it('compile as strictly as the project; a wrong one is told with its place', () => {
    expect(faults).toEqual(["page.md:1: Type 'number' is not assignable to type 'string'.", "page.md:1: Cannot find name 'nobodyKnows'."]);
  });

  it.each(examples)('$at runs', ({ at }) => {
    expect(results[fileOf(folder, at)]).toBeNull();
  });

  it("the README's script leaves an adapter folder", () => {
    const place = fileOf(folder, examples[0]?.at ?? '').replace(/\.mts$/, '');
    const config = JSON.parse(readFileSync(path.join(place, 'out/adapter_config.json'), 'utf8')) as { r: number };
    expect(config.r).toBe(16);
  });
});

const fileOf = (folder: string, at: string): string => path.join(folder, `${at.replace(/\W/g, '-')}.mts`);

/** By its file, since the examples lie in a folder that has no packages. */
const loader = pathToFileURL(createRequire(import.meta.url).resolve('tsx')).href;

/** Runs examples in one process; for each of their files null, or why it failed. */
async function runAll(folder: string, whole: readonly Complete[]): Promise<Record<string, string | null>> {
  const urlOf = (file: string): string => pathToFileURL(path.join(root, file)).href;
  for (const { at, code, above } of whole) {
    const text = textOf(code, above.map((line) => line.replace(/'\.\/(.*)'/, (_, file: string) => `'${urlOf(file)}'`)));
    writeFileSync(fileOf(folder, at), text.replaceAll("'lowrank'", `'${urlOf('src/index.ts')}'`));
  }
  writeFileSync(path.join(folder, 'examples.json'), JSON.stringify(whole.map(({ at }) => fileOf(folder, at))));
  await promisify(execFile)(process.execPath, ['--import', loader, path.join(root, 'test/examples-run.ts'), folder]);
  return JSON.parse(readFileSync(path.join(folder, 'results.json'), 'utf8')) as Record<string, string | null>;
}
