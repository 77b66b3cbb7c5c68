import { describe, expect, it } from 'vitest';
import { type ActivationDtype, openDevice, probeDevices } from '../src/device.ts';
import { launch } from '../src/kernel.ts';
import { add, toActivation } from '../src/ops/elementwise.ts';
import { Tape } from '../src/tape.ts';
import { embedding } from '../src/ops/embedding.ts';

const emulated = probeDevices('cusim').count > 0;
if (!emulated) console.warn('activations in 16 bits: not tested (there is no emulator here)');

describe('activations', () => {
  it.each(['bf16', 'f16'] as const)('%s is refused by the CPU in words, and the device is closed again', async (activations) => {
    await expect(openDevice('cpu', { activations })).rejects.toMatchObject({ code: 'ERR_ARGUMENT', message: `cpu: activations must be f32 here (found ${activations})` });
  });

  it('a dtype that is none is refused', async () => {
    await expect(openDevice('cpu', { activations: 'f64' as ActivationDtype })).rejects.toMatchObject({ code: 'ERR_ARGUMENT', message: expect.stringContaining('found f64') as string });
  });
});

describe.skipIf(!emulated)('activations in 16 bits', () => {
  it.each(['f32', 'bf16', 'f16'] as const)('%s: what is made from nothing, and what is made of that, has the dtype of the device', async (activations) => {
    await using device = await openDevice('cusim', { activations });
    expect(device.info.activations).toBe(activations);
    const x = embedding(device.tensor(Int32Array.of(2, 0)), device.tensor(Float32Array.of(1, 2, 3, 4, 5, 6), [3, 2]));
    const y = add(x, x.like());
    launch('copy', y, x);
    const again = y.view(y.shape).like([4, 2]);
    expect([x.dtype, y.dtype, again.dtype]).toEqual([activations, activations, activations]);
    expect(await y.data()).toEqual(Float32Array.of(5, 6, 1, 2));
  });

  it('whole rows of one with spare columns can be viewed, parts of rows not', async () => {
    await using device = await openDevice('cusim', { activations: 'bf16' });
    const x = device.activation([4, 3]);
    x.upload(Uint16Array.from({ length: 12 }, (_, i) => 0x3f80 + i));
    expect(new Uint16Array(await x.view([2, 3], 6).bytes())).toEqual(Uint16Array.from({ length: 6 }, (_, i) => 0x3f86 + i));
    expect(() => x.view([3], 1)).toThrow(/whole rows/);
    expect(() => x.view([12])).toThrow(/whole rows/);
  });

  it('numbers in f32 become an activation, rounded, and its gradient comes back in f32', async () => {
    await using device = await openDevice('cusim', { activations: 'f16' });
    using x = device.tensor(Float32Array.of(1 + 2 ** -12, 1 + 2 ** -11 + 2 ** -12, -3), [1, 3]);
    using tape = new Tape();
    tape.watch(x);
    using y = tape.record(() => toActivation(x));
    expect([y.dtype, await y.data()]).toEqual(['f16', Float32Array.of(1, 1 + 2 ** -10, -3)]);
    using dx = tape.backward(y, y.like()).get(x);
    expect(dx?.dtype).toBe('f32');
  });

  it('a table may lie in rows with spare columns, the parts of a weight not', async () => {
    await using device = await openDevice('cusim', { activations: 'bf16' });
    const table = device.activation([4, 3]);
    table.upload(Uint16Array.from({ length: 12 }, (_, i) => 0x3f80 + i));
    const y = embedding(device.tensor(Int32Array.of(2, 0)), table);
    expect(new Uint16Array(await y.bytes())).toEqual(Uint16Array.of(0x3f86, 0x3f87, 0x3f88, 0x3f80, 0x3f81, 0x3f82));
    expect(() => device.weight([table])).toThrow(/must have no spare columns/);
  });
});
