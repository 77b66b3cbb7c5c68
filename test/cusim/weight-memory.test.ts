import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Device, MappedFile, openDevice, type Weight } from '../../src/device.ts';
import { launch } from '../../src/kernel.ts';
import type { Tensor } from '../../src/tensor.ts';
import { normals } from '../reference/finite-difference.ts';
import { bf16Bits } from '../reference/half.ts';
import { count, kind, why } from './tested-device.ts';

if (count === 0) console.warn(`weights that take turns: not tested (${why.split(':')[0]})`);

const folder = mkdtempSync(path.join(tmpdir(), 'lowrank-turns-'));
const file = path.join(folder, 'weights.bin');
const checkedPlugin = fileURLToPath(new URL('../../build/Release/liblowrank_cusim_checked.so', import.meta.url));
const plugins = kind === 'cuda' ? [undefined] : [undefined, checkedPlugin];

/** The layers of a small net, [out, in] of bf16: some of two parts, and a head that is greater than the rest. */
const C = 24;
const layers: readonly (readonly number[])[] = [...Array.from({ length: 5 }, () => [[40], [24]]).flat(), [90]];
const inputs = layers.map((_, i) => (layers[i - 1] ?? [C]).reduce((sum, out) => sum + out, 0));
const sizes = layers.map((outs, i) => outs.reduce((sum, out) => sum + out, 0) * (inputs[i] as number) * 2);
/** What a weight takes of the memory: multiples of 256 bytes. */
const taken = sizes.map((size) => Math.ceil(size / 256) * 256);
const all = taken.reduce((sum, size) => sum + size, 0);
const greatest = Math.max(...taken);

beforeAll(() => {
  const values = normals(sizes.reduce((sum, size) => sum + size / 2, 0), 3);
  writeFileSync(file, Uint16Array.from(values, (value) => bf16Bits(0.3 * value)));
});
afterAll(() => rmSync(folder, { recursive: true }));

function mapLayers(device: Device, from = file): { parts: Tensor[]; weights: Weight[] } {
  using mapped = new MappedFile(from);
  let at = 0;
  const parts = layers.map((outs, i) => {
    const shape = [outs[0] as number, inputs[i] as number];
    const part = device.mapped(mapped, 'bf16', at, shape);
    at += sizes[i] as number;
    return part;
  });
  return { parts, weights: parts.map((part) => device.weight([part])) };
}

/** Up and down through the layers, queued at once; what came out. */
async function pass(device: Device, weights: readonly Weight[], rows = 3): Promise<Float32Array[]> {
  const made: Tensor[] = [device.tensor(Float32Array.from(normals(rows * C, 9)), [rows, C])];
  for (const weight of weights) {
    const y = device.empty([rows, weight.rows]);
    launch('linear', y, made.at(-1) as Tensor, weight, null, null);
    made.push(y);
  }
  for (const weight of [...weights].reverse()) {
    const dx = device.empty([rows, weight.in]);
    launch('linear_grad', dx, made.at(-1) as Tensor, weight);
    made.push(dx);
  }
  const results = await Promise.all(made.slice(1).map((tensor) => tensor.data()));
  made.forEach((tensor) => tensor.dispose());
  return results;
}

interface Event {
  readonly name: string;
  readonly args: { readonly shapes: string };
}

let opened = 0;

/** What `body` did to the weights, by the trace: [what, which] in order. */
async function traced(weightMemory: number, body: (device: Device) => Promise<void>, plugin?: string): Promise<[string, number][]> {
  const trace = path.join(folder, 'trace.json');
  const before = { LOWRANK_TRACE: process.env['LOWRANK_TRACE'], LOWRANK_CUSIM_PLUGIN: process.env['LOWRANK_CUSIM_PLUGIN'] };
  Object.assign(process.env, { LOWRANK_TRACE: trace }, plugin === undefined ? {} : { LOWRANK_CUSIM_PLUGIN: plugin });
  opened += 1;
  const own = opened === 1 ? trace : `${trace}.${opened}`;
  try {
    const device = await openDevice(kind, { activations: 'f32', weightMemory });
    try {
      await body(device);
    } finally {
      device.close();
    }
  } finally {
    for (const [name, value] of Object.entries(before)) {
      if (value === undefined) delete process.env[name];
      else process.env[name] = value;
    }
  }
  const begins = sizes.map((_, i) => sizes.slice(0, i).reduce((sum, size) => sum + size, 0));
  return (JSON.parse(readFileSync(own, 'utf8')) as Partial<Event>[])
    .filter((event): event is Event => event.name === 'read_ahead' || event.name === 'let_go')
    .map(({ name, args }) => [name, begins.indexOf(Number(/^\d+/.exec(args.shapes)?.[0]))]);
}

describe.skipIf(count === 0)(`weights that take turns in a part of the device memory (${kind})`, () => {
  it.each([
    ['all fit', all], ['half of them', Math.floor(all / 2)], ['the greatest and one more', greatest + (taken[0] as number)], ['the greatest alone', greatest],
  ])('give the same bits as those that stay, where there is room for %s', async (_, weightMemory) => {
    for (const plugin of plugins) {
      const want: Float32Array[][] = [];
      await traced(0, async (device) => {
        const { weights } = mapLayers(device);
        for (let i = 0; i < 2; i++) want.push(await pass(device, weights));
      }, plugin);
      let held = 0;
      const events = await traced(weightMemory, async (device) => {
        const { weights } = mapLayers(device);
        expect(device.stats().liveBytes).toBe(Math.ceil(weightMemory / 256) * 256);
        for (const results of want) expect(await pass(device, weights)).toEqual(results);
        // Queued together, as micro-batches are.
        for (const results of await Promise.all([pass(device, weights), pass(device, weights)])) expect(results).toEqual(want[0]);
      }, plugin);
      for (const [what, which] of events) {
        held += (what === 'read_ahead' ? 1 : -1) * (taken[which] as number);
        expect(held).toBeLessThanOrEqual(weightMemory);
      }
    }
  });

  it('are brought once each, in the order of their use, where all fit', async () => {
    const events = await traced(all, async (device) => {
      const { weights } = mapLayers(device);
      await pass(device, weights);
      await pass(device, weights);
      expect(device.stats().broughtBytes).toBe(sizes.reduce((sum, size) => sum + size, 0));
    });
    expect(events).toEqual(layers.map((_, i) => ['read_ahead', i]));
  });

  it('are brought about half each pass, where half of them fit', async () => {
    const events = await traced(Math.floor(all / 2), async (device) => {
      const { weights } = mapLayers(device);
      await pass(device, weights);
      await pass(device, weights);
    });
    const bytes = events.filter(([what]) => what === 'read_ahead').reduce((sum, [, which]) => sum + (taken[which] as number), 0);
    // Four ways through the layers. The first brings all; each other one half, and what the grain of whole weights costs.
    expect(bytes).toBeGreaterThan(2 * all);
    expect(bytes).toBeLessThan(3.2 * all);
  });

  it('what was queued is done with a weight that is disposed of, and its room is used again', async () => {
    await traced(greatest + (taken[0] as number), async (device) => {
      const first = mapLayers(device);
      const want = await pass(device, first.weights);
      const results = pass(device, first.weights);
      for (const owner of [...first.weights, ...first.parts]) owner.dispose();
      expect(await results).toEqual(want);
      for (let i = 0; i < 3; i++) {
        const again = mapLayers(device);
        expect(await pass(device, again.weights)).toEqual(want);
        for (const owner of [...again.weights, ...again.parts]) owner.dispose();
      }
    });
  });

  it('a matrix is read as a tensor beside them, and one that was made on the device stays there', async () => {
    await traced(greatest, async (device) => {
      const { parts, weights } = mapLayers(device);
      const want = await pass(device, weights);
      const copies = parts.map((part) => {
        const copy = part.like();
        launch('copy', copy, part);
        return copy;
      });
      expect(await pass(device, copies.map((copy) => device.weight([copy])))).toEqual(want);
    });
  });

  it('a weight that is greater than the memory for weights is refused', async () => {
    await traced(greatest - 256, async (device) => {
      expect(() => mapLayers(device)).toThrow(expect.objectContaining({ code: 'ERR_MEMORY', message: expect.stringContaining(`${greatest} bytes in ${greatest - 256}`) as string }));
      await device.fence();
    });
  });

  it('a file that was made shorter is an error that names it, and the device goes on', async () => {
    const copy = path.join(folder, 'copy.bin');
    writeFileSync(copy, readFileSync(file));
    await traced(greatest, async (device) => {
      const { weights } = mapLayers(device);
      const broken = mapLayers(device, copy);
      const want = await pass(device, weights);
      truncateSync(copy, 4096);
      await expect(pass(device, broken.weights)).rejects.toMatchObject({ code: 'ERR_FILE', message: expect.stringContaining(`${copy}: must keep its length`) as string });
      await device.fence().catch(() => undefined);
      expect(await pass(device, weights)).toEqual(want);
    });
  });

  it('closing the device in mid-pass waits for no weight', async () => {
    await traced(greatest, async (device) => {
      const { weights } = mapLayers(device);
      const x = device.tensor(new Float32Array(3 * C), [3, C]);
      for (let i = 0; i < 40; i++) launch('linear', device.empty([3, 40]), x, weights[2 * (i % 5)] as Weight, null, null);
      device.close();
    });
  });
});

describe.skipIf(count < 2)(`two devices (${kind})`, () => {
  it.each([0, greatest])('each have their own weights and tensors (weightMemory %i)', async (weightMemory) => {
    await using first = await openDevice(`${kind}:0`, { activations: 'f32', weightMemory });
    await using second = await openDevice(`${kind}:1`, { activations: 'f32', weightMemory });
    const [a, b] = [mapLayers(first), mapLayers(second)];
    const [one, two, again] = await Promise.all([pass(first, a.weights), pass(second, b.weights), pass(first, a.weights)]);
    expect(two).toEqual(one);
    expect(again).toEqual(one);
    using x = second.tensor(new Float32Array(C), [1, C]);
    using y = second.empty([1, 40]);
    expect(() => launch('linear', y, x, a.weights[0] as Weight, null, null)).toThrow(expect.objectContaining({ code: 'ERR_DEVICE' }));
  });
});
