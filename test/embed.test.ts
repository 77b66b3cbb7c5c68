import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { compileC, findsProgram, hasLibrary, root, run } from './capi/native.ts';
import { embedGoldens as goldens, expectSteps } from './embed-steps.ts';
import { goldenPath } from './golden/read.ts';

const tsx = ['--import', pathToFileURL(createRequire(import.meta.url).resolve('tsx')).href];

describe.skipIf(!hasLibrary)('examples/embed-c', () => {
  let folder: string;
  beforeAll(() => {
    folder = mkdtempSync(path.join(tmpdir(), 'lowrank-embed-'));
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  it("comes to PEFT's losses and gradient norms, under ASan and UBSan", () => {
    expectSteps(run(compileC('examples/embed-c/train.c', path.join(folder, 'train'), 'sanitized'), []), goldens.layer);
  });

  it.skipIf(!findsProgram('valgrind', 'examples/embed-c is not run under it'))('valgrind has nothing to say', () => {
    const program = compileC('examples/embed-c/train.c', path.join(folder, 'under-valgrind'));
    expectSteps(run('valgrind', ['-q', '--error-exitcode=1', '--leak-check=full', '--show-leak-kinds=all', program]), goldens.layer);
  });
});

describe('examples/embed-typescript', () => {
  it("comes to PEFT's losses and gradient norms", async () => {
    const { stdout } = await promisify(execFile)(process.execPath, [...tsx, 'examples/embed-typescript/train.ts'], { cwd: root });
    expectSteps(stdout, goldens.mlp);
  });
});

describe('examples/serve-adapters', () => {
  const { base, adapters, prompts, tokens } = goldens.serve;
  let server: ChildProcess;
  let address: string;
  beforeAll(async () => {
    const named = Object.entries(adapters).map(([name, folder]) => `${name}=${goldenPath('families', folder)}`);
    server = spawn(process.execPath, [...tsx, 'examples/serve-adapters/server.ts', goldenPath('families', base), ...named], { cwd: root, env: { ...process.env, PORT: '0' }, stdio: ['ignore', 'pipe', 'inherit'] });
    for await (const line of createInterface({ input: server.stdout as NodeJS.ReadableStream })) {
      address = line;
      break;
    }
  });
  afterAll(() => server.kill());

  async function ask(body: unknown): Promise<{ status: number; lines: readonly { id?: number; error?: string }[] }> {
    const response = await fetch(address, { method: 'POST', body: JSON.stringify(body) });
    const text = await response.text();
    return { status: response.status, lines: text.trim().split('\n').map((line) => JSON.parse(line) as { id?: number; error?: string }) };
  }

  it("requests side by side, each under its own adapter, give PEFT's tokens", async () => {
    const asked = Object.keys(tokens).flatMap((name) => prompts.map((prompt, i) => ({ name, prompt, wanted: tokens[name]?.[i] })));
    const answers = await Promise.all(asked.map(({ name, prompt }) => ask({ adapter: name === '' ? null : name, prompt, maxTokens: 8 })));
    expect(answers.map(({ lines }) => lines.map(({ id }) => id))).toEqual(asked.map(({ wanted }) => wanted));
    expect(new Set(asked.map(({ wanted }) => JSON.stringify(wanted))).size, 'adapters differ').toBe(asked.length);
  });

  it.each([
    [{ adapter: 'nobody', prompt: [1] }, /nobody is none; there are: all, patterns/],
    [{ adapter: 'all' }, /`prompt` must be/],
    [{ adapter: 'all', prompt: [96] }, /96/],
  ])('a request that is wrong is told why, and the next one is served: %j', async (body, why) => {
    const { status, lines } = await ask(body);
    expect(status).toBeGreaterThanOrEqual(400);
    expect(lines[0]?.error).toMatch(why);
    expect((await ask({ adapter: null, prompt: prompts[0], maxTokens: 2 })).lines.map(({ id }) => id)).toEqual(tokens['']?.[0]?.slice(0, 2));
  });
});
