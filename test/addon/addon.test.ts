import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Device, openDevice } from '../../src/device.ts';
import { launch } from '../../src/kernel.ts';
import { addon } from '../../src/native.ts';
import type { Tensor } from '../../src/tensor.ts';

let device: Device;
beforeAll(async () => {
  device = await openDevice('cpu');
});
afterAll(() => device.close());

const norm = (y: Tensor, r: Tensor, x: Tensor, w: Tensor): void => launch('rms_norm', y, r, x, w, 1e-5);

function operands(rows: number, cols: number): [Tensor, Tensor, Tensor, Tensor] {
  return [device.empty([rows, cols]), device.empty([rows]), device.tensor(new Float32Array(rows * cols).fill(2), [rows, cols]), device.tensor(new Float32Array(cols).fill(1))];
}

describe('a call that does not fit is refused before anything is queued', () => {
  const dispose = (tensors: readonly Tensor[]): void => tensors.forEach((tensor) => tensor.dispose());

  it('shapes: the rule and what was found', () => {
    const [y, r, x, w] = operands(3, 37);
    const short = device.empty([36]);
    const before = device.stats().ops;
    expect(() => norm(y, r, x, short)).toThrow(expect.objectContaining({
      code: 'ERR_SHAPE',
      message: 'rms_norm: w must have C elements (y [3,37], r [3], x [3,37], w [36])',
    }));
    expect(device.stats().ops).toBe(before);
    dispose([y, r, x, w, short]);
  });
  it('dtypes', () => {
    const [y, r, x, w] = operands(2, 4);
    const half = device.empty([2, 4], 'f16');
    expect(() => norm(y, r, half, w)).toThrow(expect.objectContaining({ code: 'ERR_DTYPE', message: 'rms_norm: x must be f32 on this device (found f16)' }));
    dispose([y, r, x, w, half]);
  });
  it('a released tensor, though its slot lives on under a new handle', () => {
    const stale = device.empty([4]);
    const handle = stale.handle;
    stale.dispose();
    using next = device.empty([4]);
    expect(next.handle).not.toBe(handle);
    expect(() => addon().view(handle, 0, 4)).toThrow(expect.objectContaining({ code: 'ERR_DISPOSED' }));
    expect(() => stale.handle).toThrow(expect.objectContaining({ code: 'ERR_DISPOSED' }));
  });
  it('operands of two devices', async () => {
    await using other = await openDevice('cpu');
    const [y, r, x, w] = operands(2, 4);
    using foreign = other.empty([4]);
    expect(() => norm(y, r, x, foreign)).toThrow(expect.objectContaining({ code: 'ERR_DEVICE' }));
    dispose([y, r, x, w]);
  });
  it('too few and too many operands', () => {
    using x = device.empty([2, 2]);
    expect(() => launch('rms_norm', x)).toThrow(expect.objectContaining({ code: 'ERR_ARGUMENT' }));
    expect(() => launch('fill', x, 1, 2)).toThrow('fill: takes 2 arguments (found 3)');
  });
  it.each([[-1], [1.5], [NaN], [2 ** 60]])('an impossible dimension: %s', (dim) => {
    expect(() => device.empty([dim])).toThrow(expect.objectContaining({ code: expect.stringMatching(/ERR_(SHAPE|MEMORY)/) }));
  });
  it('an upload of the wrong size', () => {
    using x = device.empty([4]);
    expect(() => x.upload(new Float32Array(3))).toThrow('upload: the tensor has 16 bytes (found 12)');
  });
  it('more memory than there is', () => {
    expect(() => device.empty([1e14])).toThrow(expect.objectContaining({ code: 'ERR_MEMORY' }));
  });
});

describe('failures while running', () => {
  it('the first one rejects the next fence, and what stood behind it did not run', async () => {
    using ids = device.tensor(new Int32Array([0, 9]));
    using table = device.tensor(new Float32Array(6).fill(1), [3, 2]);
    using y = device.empty([2, 2]);
    using witness = device.tensor(new Float32Array([7]));
    launch('embedding', y, ids, table, null, null);
    launch('fill', witness, 0);
    await expect(device.fence()).rejects.toMatchObject({ code: 'ERR_RANGE', message: expect.stringContaining('9') });
    await device.fence();
    expect([...(await witness.data())]).toEqual([7]);
  });
});

describe('memory', () => {
  it('a queue of ops with temporaries needs the memory of one of them', () => {
    device.resetPeak();
    const before = device.stats().peakBytes;
    const [y, r, x, w] = operands(64, 1024);
    const first = device.stats().peakBytes;
    for (let i = 0; i < 1000; i++) {
      using temporary = device.empty([64, 1024]);
      norm(temporary, r, x, w);
    }
    expect(device.stats().peakBytes - first).toBeLessThanOrEqual(64 * 1024 * 4);
    expect(first).toBeGreaterThan(before);
    for (const tensor of [y, r, x, w]) tensor.dispose();
  });
  it('closing a device rejects the fences of what it had not run yet', async () => {
    const other = await openDevice('cpu');
    const [x, y, r, w] = [[4096, 1024], [4096, 1024], [4096], [1024]].map((dims) => other.empty(dims)) as [Tensor, Tensor, Tensor, Tensor];
    for (let i = 0; i < 500; i++) norm(y, r, x, w);
    const fence = other.fence();
    other.close();
    await expect(fence).rejects.toMatchObject({ code: 'ERR_DISPOSED' });
  });
  it('a closed device has disposed of its tensors', async () => {
    const other = await openDevice('cpu');
    const x = other.empty([4]);
    other.close();
    other.close();
    expect(() => other.empty([1])).toThrow(expect.objectContaining({ code: 'ERR_DISPOSED' }));
    x.dispose();
  });
});

it('the event loop ticks while a step runs', async () => {
  const [y, r, x, w] = operands(4096, 1024);
  for (let i = 0; i < 200; i++) norm(y, r, x, w);
  let ticks = 0;
  const timer = setInterval(() => ticks++, 1);
  await device.fence();
  clearInterval(timer);
  expect(ticks).toBeGreaterThan(5);
  for (const tensor of [y, r, x, w]) tensor.dispose();
});
