import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Worker } from 'node:worker_threads';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { MappedFile, openDevice, probeDevices } from '../../src/device.ts';
import { fromDLPack, releaseDLPack, toDLPack } from '../../src/dlpack.ts';
import type { ErrorCode } from '../../src/error.ts';
import { launch } from '../../src/kernel.ts';
import { fillInplace } from '../../src/ops/elementwise.ts';
import { onCpu } from '../on-cpu.ts';

const here = onCpu();
const numbers = (n: number): Float32Array => Float32Array.from({ length: n }, (_, i) => i + 0.5);
const coded = (code: ErrorCode): unknown => expect.objectContaining({ code });

describe.each([{ versioned: true }, { versioned: false }])('DLPack, versioned: $versioned', (options) => {
  it('nothing is copied: what one writes the other reads', async () => {
    using x = here.device.tensor(numbers(6), [2, 3]);
    using same = fromDLPack(here.device, await toDLPack(x, options), options);
    expect([same.dtype, same.shape]).toEqual(['f32', [2, 3]]);
    fillInplace(same, 7);
    expect(await x.data()).toEqual(new Float32Array(6).fill(7));
  });

  it.each([['f16', [3]], ['bf16', [1, 5]], ['i32', []], ['u8', [2, 1, 2, 2]], ['f32', [0, 4]]] as const)('dtype %s and shape [%s] come through', async (dtype, shape) => {
    using x = here.device.empty(shape, dtype);
    using same = fromDLPack(here.device, await toDLPack(x, options), options);
    expect([same.dtype, same.shape]).toEqual([dtype, shape]);
  });

  it('the bytes outlive the tensor, and go back to the pool when the last one lets go', async () => {
    await here.device.fence(); // what earlier tests lent comes back on the stream
    const before = here.device.stats().liveBytes;
    const x = here.device.tensor(numbers(5));
    const address = await toDLPack(x, options);
    x.dispose();
    expect(here.device.stats().liveBytes).toBeGreaterThan(before);
    using same = fromDLPack(here.device, address, options);
    expect(await same.data()).toEqual(numbers(5));
    same.dispose();
    await here.device.fence();
    expect(here.device.stats().liveBytes).toBe(before);
  });

  it('the bytes outlive their device', async () => {
    const other = await openDevice('cpu', { threads: 1 });
    const x = other.tensor(numbers(4));
    const address = await toDLPack(x, options);
    other.close();
    using same = fromDLPack(here.device, address, options);
    expect(await same.data()).toEqual(numbers(4));
  });

  it('an address that nobody takes is given back', async () => {
    await here.device.fence(); // what earlier tests lent comes back on the stream
    const before = here.device.stats().liveBytes;
    using x = here.device.tensor(numbers(5));
    const address = await toDLPack(x, options);
    x.dispose();
    releaseDLPack(address, options);
    expect(here.device.stats().liveBytes).toBe(before);
  });
});

describe('DLPack', () => {
  it('a device that is closed gives back what it took, even its own', async () => {
    const other = await openDevice('cpu', { threads: 1 });
    fromDLPack(other, await toDLPack(other.tensor(numbers(4))));
    await here.device.fence(); // what earlier tests lent comes back on the stream
    const before = here.device.stats().liveBytes;
    const x = here.device.tensor(numbers(3));
    fromDLPack(other, await toDLPack(x));
    x.dispose();
    other.close();
    expect(here.device.stats().liveBytes).toBe(before);
  });

  it('a failure of the queued work rejects, and the bytes come back', async () => {
    await here.device.fence(); // what earlier tests lent comes back on the stream
    const before = here.device.stats().liveBytes;
    using table = here.device.tensor(numbers(6), [2, 3]);
    using ids = here.device.tensor(Int32Array.of(9));
    using y = here.device.empty([1, 3]);
    launch('embedding', y, ids, table, null, null);
    await expect(toDLPack(y)).rejects.toEqual(coded('ERR_RANGE'));
    for (const tensor of [table, ids, y]) tensor.dispose();
    expect(here.device.stats().liveBytes).toBe(before);
  });

  it('another thread may take it and let go of it', async () => {
    await here.device.fence(); // what earlier tests lent comes back on the stream
    const before = here.device.stats().liveBytes;
    const x = here.device.tensor(numbers(5));
    const address = await toDLPack(x);
    x.dispose();
    const script = `const { parentPort, workerData } = require('node:worker_threads');
      const addon = require(workerData.addon);
      const device = addon.open('cpu', 0, 1, 0, 0, 0);
      const [tensor] = addon.adopt(device, workerData.address, 1);
      addon.download(tensor).then((bytes) => { addon.release(tensor); return addon.fence(device).then(() => parentPort.postMessage(new Float32Array(bytes))); });`;
    const addon = fileURLToPath(new URL('../../build/Release/lowrank.node', import.meta.url));
    const worker = new Worker(script, { eval: true, workerData: { addon, address } });
    expect(await new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject))).toEqual(numbers(5));
    await worker.terminate();
    expect(here.device.stats().liveBytes).toBe(before);
  });

  it('a tensor in a mapped file is lent for reading only', async () => {
    const folder = mkdtempSync(path.join(tmpdir(), 'lowrank-dlpack-'));
    const file = path.join(folder, 'numbers.bin');
    writeFileSync(file, new Uint8Array(numbers(4).buffer));
    {
      using mapped = new MappedFile(file);
      using x = here.device.mapped(mapped, 'f32', 0, [4]);
      await expect(toDLPack(x, { versioned: false })).rejects.toEqual(coded('ERR_ARGUMENT'));
      using same = fromDLPack(here.device, await toDLPack(x));
      expect(await same.data()).toEqual(numbers(4));
      expect(() => same.upload(numbers(4))).toThrow(/mapped file/);
    }
    rmSync(folder, { recursive: true });
  });

  it('what can not be an address is refused', () => {
    for (const address of [0n, 3n, -8n, 1n << 70n]) expect(() => fromDLPack(here.device, address)).toThrow(coded('ERR_ARGUMENT') as Error);
  });

  it.skipIf(probeDevices('cusim').count === 0)('a tensor of another device is refused, and stays the caller’s', async () => {
    using emulated = await openDevice('cusim');
    using x = emulated.tensor(numbers(4));
    const address = await toDLPack(x);
    expect(() => fromDLPack(here.device, address)).toThrow(/must be on the device/);
    using same = fromDLPack(emulated, address);
    expect(await same.data()).toEqual(numbers(4));
  });
});
