import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { openDevice } from '../../src/device.ts';
import { loadAdapter } from '../../src/lora/load.ts';
import { loadModel } from '../../src/models/load.ts';
import { scope } from '../../src/scope.ts';
import { goldenPath } from '../golden/read.ts';
import { hasSharedData, sharedData } from '../shared-data.ts';
import { here } from './here.ts';
import { jsonLines, lowrank } from './lowrank.ts';

const model = goldenPath('families', 'llama_tied');
const emulator = fileURLToPath(new URL('../../build/Release/liblowrank_cusim.so', import.meta.url));
let folder: string;
let rows: string;
let out: string;
const inFolder = (name: string): string => path.join(folder, name);

/** A run that most tests look at the results of. */
beforeAll(async () => {
  folder = mkdtempSync(path.join(tmpdir(), 'lowrank-cli-'));
  rows = inFolder('rows.jsonl');
  out = inFolder('out');
  const row = (s: number): string => JSON.stringify({ input_ids: Array.from({ length: 6 + (s % 7) }, (_, t) => 3 + ((5 * s + 3 * t) % 90)) });
  writeFileSync(rows, Array.from({ length: 20 }, (_, s) => `${row(s)}\n`).join(''));
  await trainOnce();
});
afterAll(() => rmSync(folder, { recursive: true }));

let trained: Awaited<ReturnType<typeof lowrank>>;
async function trainOnce(): Promise<void> {
  trained = await lowrank(['train', '--model', model, '--data', rows, '--out', out, '--rank', '4', '--steps', '6', '--lr', '0.02', '--eval', rows, '--eval-every', '3', '--save-every', '2', '--json']);
}

describe('train', () => {
  test('prints one JSON line per step with exactly these keys, and nothing else on stdout', () => {
    expect([trained.status, trained.stderr.includes('Error')]).toEqual([0, false]);
    const lines = jsonLines<Record<string, number>>(trained.stdout);
    expect(lines.map(({ step }) => step)).toEqual([1, 2, 3, 4, 5, 6]);
    for (const line of lines) {
      expect(Object.keys(line)).toEqual(['step', 'loss', 'tokens', 'gradNorm', 'lr', 'tokensPerSecond']);
      expect(Object.values(line).every(Number.isFinite)).toBe(true);
    }
  });

  test('works without a tokenizer when the rows are token ids', () => {
    expect(existsSync(path.join(model, 'tokenizer.json'))).toBe(false);
    expect(trained.status).toBe(0);
  });

  test('leaves adapter, checkpoints, report, metrics and TensorBoard events side by side', () => {
    const names = readdirSync(out);
    for (const name of ['adapter_config.json', 'adapter_model.safetensors', 'checkpoint-4', 'checkpoint-6', 'metrics.jsonl', 'report.html', 'runs']) expect(names).toContain(name);
    expect(readdirSync(path.join(out, 'runs'))[0]).toMatch(/^events\.out\.tfevents\./);
    const report = readFileSync(path.join(out, 'report.html'), 'utf8');
    for (const word of ['Held-out loss', 'batchSize', 'llama']) expect(report).toContain(word);
    expect(jsonLines<{ evalLoss?: number }>(readFileSync(path.join(out, 'metrics.jsonl'), 'utf8')).filter((line) => line.evalLoss !== undefined)).toHaveLength(3);
  });

  test('tells plain lines where there is no terminal', async () => {
    const { stderr, stdout, status } = await lowrank(['train', '--model', model, '--data', rows, '--out', inFolder('plain'), '--steps', '2', '--targets', 'q_proj,v_proj']);
    expect([status, stdout]).toEqual([0, '']);
    expect(stderr).toMatch(/step 1\/2 {2}loss \d+\.\d{4} .*tok\/s.*mem/);
    expect(stderr).not.toContain('\x1b');
    expect(stderr).toContain('adapter on 4 layers');
  });

  test('Ctrl-C finishes the step, saves and exits 130, and --resume goes on from there', async () => {
    const args = ['train', '--model', model, '--data', rows, '--out', inFolder('stopped'), '--steps', '3000', '--lr', '0.001', '--json'];
    const stopped = await lowrank(args, { onStdout: (text, child) => text.split('\n').length > 5 && !child.killed && child.kill('SIGINT') });
    expect(stopped.status).toBe(130);
    expect(stopped.stderr).toContain('--resume goes on exactly there');
    const last = jsonLines<{ step: number }>(stopped.stdout).at(-1)!.step;
    expect(readdirSync(inFolder('stopped'))).toContain(`checkpoint-${last}`);
    const resumed = await lowrank([...args, '--resume'], { onStdout: (text, child) => text.split('\n').length > 2 && !child.killed && child.kill('SIGTERM') });
    expect(resumed.status).toBe(143);
    expect(jsonLines<{ step: number }>(resumed.stdout)[0]!.step).toBe(last + 1);
    const different = await lowrank([...args, '--resume', '--lr', '0.002']);
    expect(different.status).toBe(1);
    expect(different.stderr).toContain('lr was 0.001 and is 0.002');
  });

  test('a second Ctrl-C ends it at once', async () => {
    const args = ['train', '--model', model, '--data', rows, '--out', inFolder('twice'), '--steps', '100000', '--json'];
    let sent = 0;
    const { status } = await lowrank(args, {
      onStdout: (_, child) => {
        if (sent++ === 0) child.kill('SIGINT'), child.kill('SIGTERM');
      },
    });
    expect([130, 143]).toContain(status);
  });

  test('the report shows what the model writes without and with the adapter, beside what the data says', async () => {
    const data = inFolder('walks.jsonl');
    const row = readFileSync('demo/data/train.jsonl', 'utf8').split('\n')[0]!;
    const { prompt, completion } = JSON.parse(row) as { prompt: string; completion: string };
    writeFileSync(data, row);
    const { status, stderr } = await here(['train', '--model', 'demo/base', '--data', data, '--out', inFolder('walks'), '--steps', '40', '--lr', '0.01']);
    expect([status, stderr]).toEqual([0, expect.stringContaining('step 40/40')]);
    const html = readFileSync(path.join(inFolder('walks'), 'report.html'), 'utf8');
    expect(html).toContain(prompt.slice(0, -2));
    // Once as what the data says and once as what was learned, one row by heart.
    expect(html.split(completion.trim())).toHaveLength(3);
  });

  test('starts from an existing adapter, whose rank and targets it takes', async () => {
    const { stderr, status } = await lowrank(['train', '--model', model, '--data', rows, '--out', inFolder('again'), '--adapter', out, '--steps', '1']);
    expect(status).toBe(0);
    const config = JSON.parse(readFileSync(path.join(inFolder('again'), 'adapter_config.json'), 'utf8')) as { r: number; target_modules: string[] };
    expect([config.r, config.target_modules.length]).toEqual([4, 7]);
    expect(stderr).toContain('adapter on 14 layers');
  });

  test('a bad row is told with file and line', async () => {
    const bad = inFolder('bad.jsonl');
    writeFileSync(bad, '{"input_ids":[1,2,3]}\n{"input_ids":[1,2000,3]}\n{"text":"no tokenizer"}\n');
    const { status, stderr } = await lowrank(['train', '--model', model, '--data', bad, '--out', inFolder('x')]);
    expect(status).toBe(1);
    expect(stderr).toMatch(/^lowrank: .*\[ERR_DATA\]/m);
    expect(stderr).toContain('bad.jsonl:2');
    expect(stderr).toContain('bad.jsonl:3');
    expect(stderr).not.toContain('    at ');
  });
});

/** Logits of a few ids. */
async function logitsOf(folder_: string, adapter: string | null): Promise<Float32Array> {
  await using device = await openDevice('cpu');
  const base = await loadModel(folder_, { device });
  if (adapter !== null) await loadAdapter(base, adapter, { trainable: false });
  using cache = Object.assign(base.newCache(16), { [Symbol.dispose](this: { dispose(): void }) { this.dispose(); } });
  using logits = scope(() => base.logits(base.decode([5, 17, 40, 3, 88], cache)));
  return await logits.data(); // before the device is closed
}

describe('merge', () => {
  test.each([['llama_tied', null], ['llama_bf16_sharded', null], ['gpt2', null], ['qwen2_f16', null]])('%s: the folder has the adapter in it, in the dtype and files of the base', async (family) => {
    const base = goldenPath('families', family);
    const adapter = path.join(base, 'adapter');
    const merged = inFolder(`merged-${family}`);
    const { status, stderr } = await here(['merge', '--model', base, '--adapter', adapter, '--out', merged]);
    expect([status, stderr]).toEqual([0, expect.stringContaining('merged')]);
    const weights = (at: string): string[] => readdirSync(at).filter((name) => name.includes('safetensors') && name !== 'golden.safetensors').sort();
    expect(weights(merged)).toEqual(weights(base));
    expect(readFileSync(path.join(merged, 'config.json'))).toEqual(readFileSync(path.join(base, 'config.json')));
    const [apart, together, before] = [await logitsOf(base, adapter), await logitsOf(merged, null), await logitsOf(base, null)];
    const furthest = (a: Float32Array, b: Float32Array): number => a.reduce((most, value, i) => Math.max(most, Math.abs(value - b[i]!)), 0);
    const moved = furthest(before, apart);
    // Rounding W + sBA to 16 bits once: a small part of what the adapter does.
    expect(furthest(together, apart)).toBeLessThan(family.includes('16') ? 0.1 * moved : 1e-4);
  });

  test('refuses a folder that has something in it, and leaves it alone', async () => {
    const taken = inFolder('taken');
    mkdirSync(taken);
    writeFileSync(path.join(taken, 'mine.txt'), 'mine');
    const { status, stderr } = await here(['merge', '--model', model, '--adapter', out, '--out', taken]);
    expect([status, stderr]).toEqual([1, expect.stringContaining('must be empty or not exist yet (it holds mine.txt)')]);
    expect(readdirSync(taken)).toEqual(['mine.txt']);
  });

  test('leaves weights in other formats behind, and copies the rest', async () => {
    const base = inFolder('base');
    cpSync(model, base, { recursive: true });
    writeFileSync(path.join(base, 'pytorch_model.bin'), 'pickle');
    writeFileSync(path.join(base, 'notes.txt'), 'keep me');
    const merged = inFolder('merged-rest');
    const { stderr } = await here(['merge', '--model', base, '--adapter', out, '--out', merged]);
    expect(stderr).toContain('left out');
    expect(readdirSync(merged)).toContain('notes.txt');
    expect(readdirSync(merged)).not.toContain('pytorch_model.bin');
  });
});

describe('the other verbs', () => {
  test('eval: loss and perplexity, with and without the adapter', async () => {
    const loss = async (...flags: string[]): Promise<{ loss: number; perplexity: number; tokens: number }> => {
      const { stdout, status } = await here(['eval', '--model', model, '--data', rows, '--json', ...flags]);
      expect(status).toBe(0);
      return jsonLines<{ loss: number; perplexity: number; tokens: number }>(stdout)[0]!;
    };
    const [before, after] = [await loss(), await loss('--adapter', out, '--batch-size', '3')];
    expect(after.loss).toBeLessThan(before.loss);
    expect(after.perplexity).toBeCloseTo(Math.exp(after.loss), 6);
    expect(after.tokens).toBe(before.tokens);
    const evals = jsonLines<{ step: number; evalLoss?: number }>(readFileSync(path.join(out, 'metrics.jsonl'), 'utf8')).filter((line) => line.evalLoss !== undefined);
    expect(after.loss).toBeCloseTo(evals.at(-1)!.evalLoss!, 4);
    expect((await here(['eval', '--model', model, '--data', rows])).stdout).toMatch(/^loss \d+\.\d+ {2}perplexity/);
  });

  test.each(['eval', 'inspect'])('%s: rows longer than the model has positions are refused', async (verb) => {
    const args = verb === 'eval' ? ['eval', '--model', model, '--data', rows] : ['inspect', model];
    const { status, stderr } = await here([...args, '--seq-length', '100000']);
    expect([status, stderr]).toEqual([1, expect.stringMatching(/--seq-length: must be at most \d+/)]);
  });

  test('inspect tells a model, an adapter, a run and a file apart', async () => {
    const kinds: [string, string[]][] = [
      [model, ['family', 'llama', '--batch-size 4', 'activations', 'together']],
      [out, ['kind', 'adapter', 'rank', 'checkpoints', 'step 6 of 6']],
      [path.join(model, 'model.safetensors'), ['model.embed_tokens.weight', 'F32', 'tensors']],
    ];
    for (const [at, words] of kinds) {
      const { stdout, status } = await here(['inspect', at]);
      expect(status).toBe(0);
      for (const word of words) expect(stdout).toContain(word);
      expect(JSON.parse((await here(['inspect', at, '--json'])).stdout)).toHaveProperty('kind');
    }
  });

  test('doctor finds the CPU fit, says what it forced, and why there is no CUDA', async () => {
    const { stdout, status } = await lowrank(['doctor'], { env: { LOWRANK_ISA: 'base', LOWRANK_AMX: 'emulated' } });
    expect(status).toBe(0);
    for (const word of ['self-test', 'passed', 'forced by LOWRANK_ISA', 'bf16 by an emulation of AMX', 'cuda', 'fine: the CPU backend works']) expect(stdout).toContain(word);
  });

  test('doctor names the CUDA plugin that is not there, and where it was looked for', async () => {
    const { stdout, status } = await lowrank(['doctor', '--json'], { env: { LOWRANK_CUDA_PLUGIN: '/nowhere/plugin.so' } });
    expect(status).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({ cuda: expect.stringMatching(/^none: no cuda plugin: \/nowhere\/plugin\.so/) as string });
  });

  test.skipIf(!existsSync(emulator))('doctor tells what a CUDA device is called and whether it computes', async () => {
    const { stdout } = await lowrank(['doctor', '--json'], { env: { LOWRANK_CUDA_PLUGIN: emulator } });
    expect(JSON.parse(stdout)).toMatchObject({
      cuda: expect.stringMatching(/^\d devices?: CUDA emulator, .* free; kernels sm_90; activations /) as string,
      'cuda products': 'of 16 bits by own kernel (the emulator has nothing else)',
      'cuda self-test': expect.stringMatching(/^passed/) as string,
    });
  });

  test('generate without a tokenizer says what is missing', async () => {
    const { status, stderr } = await here(['generate', '--model', model, '--prompt', 'x']);
    expect([status, stderr]).toEqual([1, expect.stringMatching(/must hold tokenizer\.json.*\[ERR_FILE\]/)]);
  });
});

describe.skipIf(!hasSharedData)('generate', () => {
  const story = hasSharedData ? sharedData('models', 'stories260K-fp32') : '';
  const prompt = ['generate', '--model', story, '--prompt', 'Once upon a time'];

  test('streams the greedy text, alike each time, and nothing else', async () => {
    const [one, two] = [await here([...prompt, '--max-tokens', '30']), await here([...prompt, '--max-tokens', '30'])];
    expect(one.stdout).toBe(two.stdout);
    expect([one.stderr, one.stdout.endsWith('\n')]).toEqual(['', true]);
    expect(one.stdout.length).toBeGreaterThan(40);
  });

  test('takes the prompt from stdin', async () => {
    const { stdout, status } = await lowrank(['generate', '--model', story, '--max-tokens', '30'], { stdin: 'Once upon a time\n' });
    expect(status).toBe(0);
    expect(stdout).toBe((await here([...prompt, '--max-tokens', '30'])).stdout);
  });

  test('samples by seed, and stops where it is told', async () => {
    const sampled = async (seed: string): Promise<string> => (await here([...prompt, '--max-tokens', '40', '--temperature', '1', '--top-k', '50', '--top-p', '0.95', '--seed', seed])).stdout;
    expect(await sampled('1')).toBe(await sampled('1'));
    expect(await sampled('1')).not.toBe(await sampled('2'));
    const cut = JSON.parse((await here([...prompt, '--stop', '.', '--json'])).stdout) as { text: string; end: string };
    expect([cut.text.includes('.'), cut.end]).toEqual([false, 'stop']);
  });

  test('continues every line of --prompts as it would each alone', async () => {
    const lines = ['Once upon a time', 'The cat', 'Lily and Tom went'];
    const file = path.join(mkdtempSync(path.join(tmpdir(), 'lowrank-prompts-')), 'prompts.txt');
    writeFileSync(file, `${lines.join('\n')}\n`);
    const { stdout, status } = await here(['generate', '--model', story, '--prompts', file, '--max-tokens', '20', '--batch-size', '2']);
    expect(status).toBe(0);
    const found = stdout.trim().split('\n').map((line) => JSON.parse(line) as { index: number; prompt: string; text: string; tokens: number; end: string });
    found.sort((a, b) => a.index - b.index);
    for (const [i, line] of lines.entries()) {
      const alone = await here(['generate', '--model', story, '--prompt', line, '--max-tokens', '20', '--json']);
      expect(found[i]).toEqual({ index: i, prompt: line, ...(JSON.parse(alone.stdout) as object) });
    }
    expect((await here(['generate', '--model', story, '--prompts', `${file}.missing`])).stderr).toMatch(/must be a readable file of prompts .*\[ERR_FILE\]/);
  });

  test('with an adapter writes another text', async () => {
    const adapted = await here([...prompt, '--max-tokens', '30', '--adapter', sharedData('parity', 'tiny_all_linear', 'final_adapter')]);
    expect(adapted.status).toBe(0);
    expect(adapted.stdout).not.toBe((await here([...prompt, '--max-tokens', '30'])).stdout);
  });

  test('--chat needs a template', async () => {
    const { status, stderr } = await here([...prompt, '--chat']);
    expect([status, stderr]).toEqual([1, expect.stringMatching(/^lowrank: .*template/)]);
  });
});
