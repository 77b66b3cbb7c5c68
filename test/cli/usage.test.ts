import { afterEach, describe, expect, test, vi } from 'vitest';
import { byteCount } from '../../src/cli/usage.ts';
import { goldenPath } from '../golden/read.ts';
import { here } from './here.ts';

const model = goldenPath('families', 'llama_tied');

afterEach(() => void vi.unstubAllEnvs());

test.each([['6000000000', 6e9], ['900M', 900 * 2 ** 20], ['5.5g', 5.5 * 2 ** 30], ['1K', 1024]])('%s is %i bytes', (text, bytes) => expect(byteCount(text)).toBe(bytes));

describe('usage', () => {
  const wrong: [string[], string][] = [
    [[], 'Usage'],
    [['trian'], 'Did you mean train?'],
    [['train', '--modle', 'x'], 'Did you mean --model?'],
    [['train', '--model', 'x'], '--data and --out must be given'],
    [['train', '--model', 'x', '--data', 'y', '--out', 'z', '--steps', '3', '--epochs', '1'], "--steps and --epochs can't stand together"],
    [['train', '--model', 'x', '--data', 'y', '--out', 'z', '--adapter', 'a', '--rank', '4'], "--adapter and --rank can't stand together"],
    [['train', '--model', 'x', '--data', 'y', '--out', 'z', '--eval-every', '4'], '--eval-every needs data'],
    [['train', '--model', 'x', '--data', 'y', '--out', 'z', '--rank', '0'], 'whole number of at least 1'],
    [['train', '--model', 'x', '--data', 'y', '--out', 'z', '--betas', '0.9'], 'two numbers'],
    [['train', '--model', 'x', '--data', 'y', '--out', 'z', '--betas', '0.9,0.99', '--optimizer', 'sgd'], '--momentum'],
    [['train', '--model', 'x', '--data', 'y', '--out', 'z', '--schedule', 'cosin'], 'Allowed choices are constant, linear, cosine'],
    [['train', '--model', 'x', '--data', 'y', '--out', 'z', '--weights', 'int8'], 'Allowed choices'],
    [['train', '--model', 'x', '--data', 'y', '--out', 'z', '--weight-memory', '5X'], 'number of bytes, as 6000000000, 900M or 5.5G'],
    [['eval', '--model', 'x'], '--data must be given'],
    [['merge', '--model', 'x', '--out', 'y'], '--adapter must be given'],
    [['inspect'], "missing required argument 'path'"],
  ];
  test.each(wrong)('%j is refused with status 2', async (args, text) => {
    const { status, stderr, stdout } = await here(args);
    expect(stderr).toContain(text);
    expect([status, stdout]).toEqual([2, '']);
  });

  const failing: [string[], RegExp][] = [
    [['train', '--model', '/nowhere', '--data', 'y', '--out', 'z'], /^lowrank: \/nowhere: must be a Hugging Face model folder \(not found\) \[ERR_FILE\]\n$/],
    [['train', '--model', model, '--data', '/nowhere.jsonl', '--out', 'z'], /^lowrank: \/nowhere\.jsonl: must be a file \(not found\) \[ERR_FILE\]\n$/],
    [['generate', '--model', model, '--prompt', 'x', '--device', 'abacus'], /^lowrank: .*abacus.*\[ERR_ARGUMENT\]\n$/],
    [['generate', '--model', model, '--prompt', 'x', '--device', 'cuda:0'], /^lowrank: .*\[ERR_DEVICE\]\n$/],
    [['inspect', '/nowhere'], /\[ERR_FILE\]\n$/],
  ];
  test.each(failing)('%j fails with status 1 and one line', async (args, text) => {
    const { status, stderr, stdout } = await here(args);
    expect(stderr).toMatch(text);
    expect([status, stdout]).toEqual([1, '']);
  });

  test('LOWRANK_DEBUG=1 adds the stack', async () => {
    vi.stubEnv('LOWRANK_DEBUG', '1');
    expect((await here(['inspect', '/nowhere'])).stderr).toContain('    at ');
  });

  test('help is no error', async () => {
    const { status, stdout } = await here(['help', 'train']);
    expect(status).toBe(0);
    for (const flag of ['--model', '--data', '--out', '--rank', '--alpha', '--targets', '--dropout', '--adapter', '--steps', '--epochs', '--batch-size', '--accumulate', '--seq-length', '--optimizer', '--lr', '--betas', '--schedule', '--warmup', '--weight-decay', '--clip', '--seed', '--device', '--weights', '--eval', '--eval-every', '--save-every', '--resume', '--no-shuffle', '--json']) expect(stdout).toContain(flag);
  });
});
