import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { largeModel } from '../../bench/large-model.ts';
import { readDemoSettings } from '../../src/cli/demo-task.ts';
import { probeDevices } from '../../src/device.ts';
import { here } from '../cli/here.ts';
import { jsonLines } from '../cli/lowrank.ts';

const { count, why } = probeDevices('cusim');
if (count === 0) console.warn(`the demo on the emulator: not tested (${why.split(':')[0]})`);

const demo = fileURLToPath(new URL('../../demo', import.meta.url));
const { rank, alpha, lr, schedule, seed } = readDemoSettings(path.join(demo, 'demo.json'));
const { vocab_size: vocab } = JSON.parse(readFileSync(path.join(demo, 'base/config.json'), 'utf8')) as { vocab_size: number };

/** A row that is short enough for the emulator. */
function beginOf(row: string): string {
  const { prompt, completion } = JSON.parse(row) as { prompt: string; completion: string };
  return JSON.stringify({ prompt: prompt.slice(0, 30), completion: completion.slice(0, 40) });
}

interface Step {
  readonly loss: number;
  readonly gradNorm: number;
}

/**
 * The demo's tokenizer, settings and rows, as far as the emulator gets, with a small model: five steps of the demo's own (hidden 192, 4 layers)
 * on these rows come to the CPU's losses too, but take 31 s of a processor, twice what a test may.
 */
describe.skipIf(count === 0)('five steps of the demo (on the emulator)', () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'lowrank-demo-'));
  const rows = path.join(folder, 'train.jsonl');
  beforeAll(async () => {
    await largeModel(folder, { family: 'llama', name: 'demo', hidden: 16, layers: 2, heads: 2, kvHeads: 1, intermediate: 40, vocab, positions: 128, tied: true }, 1e6);
    for (const file of ['tokenizer.json', 'tokenizer_config.json']) copyFileSync(path.join(demo, 'base', file), path.join(folder, file));
    writeFileSync(rows, readFileSync(path.join(demo, 'data/train.jsonl'), 'utf8').split('\n').slice(0, 20).map(beginOf).join('\n'));
  });
  afterAll(() => rmSync(folder, { recursive: true }));

  async function train(device: string): Promise<Step[]> {
    const out = path.join(folder, device);
    const settings = { rank, alpha, lr, schedule, seed, steps: 5, 'batch-size': 1, 'seq-length': 128 };
    const { status, stdout, stderr } = await here(['train', '--model', folder, '--data', rows, '--out', out, '--device', device, '--json', ...Object.entries(settings).flatMap(([name, value]) => [`--${name}`, String(value)])]);
    expect(status, stderr).toBe(0);
    return jsonLines<Step>(stdout);
  }
  it('come to the losses and gradients that they come to on the CPU', async () => {
    const [wanted, found] = [await train('cpu'), await train('cusim')];
    console.log(`losses of the demo's five steps, CPU: ${told(wanted)}; emulator: ${told(found)}`);
    expect(found).toHaveLength(5);
    found.forEach(({ loss, gradNorm }, i) => {
      const step = wanted[i] as Step;
      expect(Math.abs(loss - step.loss) / step.loss, `loss of step ${i + 1}`).toBeLessThan(1e-5);
      expect(Math.abs(gradNorm - step.gradNorm) / step.gradNorm, `gradient of step ${i + 1}`).toBeLessThan(1e-3);
    });
    expect((wanted[4] as Step).loss).not.toBe((wanted[0] as Step).loss);
  });
});

const told = (steps: readonly Step[]): string => steps.map(({ loss }) => loss.toFixed(6)).join(' ');
