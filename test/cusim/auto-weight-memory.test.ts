import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { largeModel } from '../../bench/large-model.ts';
import { type Device, type DeviceOptions, openDevice } from '../../src/device.ts';
import { loadModel, type LoadOptions } from '../../src/models/load.ts';
import { logitsOf } from '../models/run.ts';
import { here } from '../cli/here.ts';
import { goldenPath } from '../golden/read.ts';
import { count, kind, why } from './tested-device.ts';

if (count === 0) console.warn(`weights that don't fit: not tested (${why.split(':')[0]})`);

/** 32 MiB of matrices: more than the emulated device has beside them. */
const large = { family: 'llama', name: 'large', hidden: 512, layers: 4, heads: 8, kvHeads: 8, intermediate: 2048, vocab: 64, positions: 64, tied: false } as const;
const deviceBytes = 36 << 20;

describe.skipIf(count === 0)(`on a device whose memory is too small for the weights (${kind})`, () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'lowrank-auto-'));
  beforeAll(() => largeModel(folder, large, 50e6));
  afterAll(() => rmSync(folder, { recursive: true }));

  /** `body` on a device of so much memory; a GPU has what it has. */
  async function within<T>(bytes: number, options: DeviceOptions, body: (device: Device) => Promise<T>): Promise<T> {
    vi.stubEnv('LOWRANK_CUSIM_MEMORY', String(bytes));
    const device = await openDevice(kind, options);
    vi.unstubAllEnvs();
    try {
      return await body(device);
    } finally {
      device.close();
    }
  }
  const loaded = (device: Device, options: Omit<LoadOptions, 'device'> = {}, from = folder): Promise<number> =>
    loadModel(from, { device, ...options }).then(({ dispose }) => (dispose(), device.info.weightMemory));

  it.skipIf(kind === 'cuda')('a model whose weights must all stay is refused', async () => {
    await within(deviceBytes, { weightMemory: 'all' }, async (device) => {
      await expect(loaded(device)).rejects.toMatchObject({ code: 'ERR_MEMORY', message: expect.stringContaining("with openDevice's weightMemory weights take turns in less") as string });
    });
  });

  it.skipIf(kind === 'cuda').each(['f32', 'bf16'] as const)('and otherwise its weights take turns in what the work leaves, activations %s', async (activations) => {
    await within(deviceBytes, { activations }, async (device) => {
      const free = device.info.freeMemory;
      expect(device.info.weightMemory).toBe(0);
      const [turns, reserve] = [await loaded(device), free / 4];
      expect(turns).toBeGreaterThan(free / 2);
      expect(turns).toBeLessThan(free - reserve - free / 8);
    });
  });

  it('a number is taken as it is, and so is what the environment says', async () => {
    await within(deviceBytes, { weightMemory: 5 << 20 }, async (device) => expect(await loaded(device)).toBe(5 << 20));
    vi.stubEnv('LOWRANK_WEIGHT_MEMORY', '6000000');
    await within(deviceBytes, {}, async (device) => expect(await loaded(device)).toBe(6000000));
    vi.stubEnv('LOWRANK_WEIGHT_MEMORY', 'all');
    await within(deviceBytes, {}, async (device) => expect(device.choosesWeightMemory).toBe(false));
    await expect(openDevice(kind, { weightMemory: -1 })).rejects.toMatchObject({ code: 'ERR_ARGUMENT', message: expect.stringContaining('a number of bytes, auto or all (found -1)') as string });
  });

  it.each(['llama_tied', 'llama_untied', 'gpt2'])('a small model has the same logits either way: %s', async (family) => {
    const model = goldenPath('families', family);
    const logits = (left: number): Promise<{ turns: number; values: Float32Array }> =>
      within(64 << 20, { activations: 'bf16' }, async (device) => {
        const own = await loadModel(model, { device, reserve: Math.max(0, device.freeBytes() - left) });
        const values = await logitsOf(own, [[3, 5, 8], [9, 4]]);
        own.dispose();
        return { turns: device.info.weightMemory, values };
      });
    const [stay, turn] = [await logits(Infinity), await logits(1 << 20)];
    expect([stay.turns, turn.turns > 0]).toEqual([0, true]);
    expect(turn.values).toEqual(stay.values);
  });

  it.skipIf(kind === 'cuda')('the command line says aloud what was chosen, and trains', async () => {
    vi.stubEnv('LOWRANK_CUSIM_MEMORY', String(64 << 20));
    const rows = path.join(folder, 'rows.jsonl');
    writeFileSync(rows, '{"input_ids": [3, 4, 5, 6]}\n');
    const train = (...more: string[]) =>
      here(['train', '--model', goldenPath('families', 'llama_tied'), '--data', rows, '--out', path.join(folder, 'out'), '--rank', '2', '--steps', '1', '--device', 'cusim', '--json', ...more]);
    const turns = await train('--batch-size', '100000');
    expect([turns.status, turns.stderr]).toEqual([0, expect.stringMatching(/^not all weights fit in the 6[\d.]+ MiB that are free: they take turns in [\d.]+ KiB \(--weight-memory says otherwise\)$/m)]);
    const stay = await train('--batch-size', '100000', '--weight-memory', 'all');
    expect([stay.status, stay.stderr]).toEqual([0, expect.not.stringContaining('take turns')]);
    const loss = ({ stdout }: { stdout: string }): unknown => (JSON.parse(stdout) as { loss: number }).loss;
    expect(loss(turns)).toBe(loss(stay));
    vi.unstubAllEnvs();
  });
});
