import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Device, openDevice } from '../../src/device.ts';
import { Linear } from '../../src/nn/linear.ts';

let device: Device;
beforeAll(async () => {
  device = await openDevice('cpu');
});
afterAll(() => device.close());

const matrix = (values: readonly number[], rows: number) => device.tensor(Float32Array.from(values), [rows, values.length / rows]);

describe('Linear', () => {
  test('joins parts that read the same x, with bias and carry', async () => {
    const linear = new Linear([{ name: 'q', matrix: matrix([1, 0, 0, 1], 2) }, { name: 'k', matrix: matrix([2, 3], 1) }], device.tensor(Float32Array.of(10, 20, 30)));
    using x = matrix([1, 2, 3, 4], 2);
    using carry = matrix([0.5, 0.5, 0.5, -1, -1, -1], 2);
    using y = linear.forward(x, carry);
    expect([...(await y.data())]).toEqual([11.5, 22.5, 38.5, 12, 23, 47]);
    expect([linear.inFeatures, ...linear.outFeatures, linear.weight.rows]).toEqual([2, 2, 1, 3]);
    linear.dispose();
  });

  test('reads [in, out] matrices as they lie', async () => {
    const linear = new Linear([{ name: 'c_fc', matrix: matrix([1, 2, 3, 4, 5, 6], 2) }], null, 'in_out');
    using x = matrix([1, 10], 1);
    using y = linear.forward(x);
    expect([...(await y.data())]).toEqual([41, 52, 63]);
    expect([linear.inFeatures, ...linear.outFeatures]).toEqual([2, 3]);
    linear.dispose();
  });

  test('exchanges matrices and gives the old ones back, which work again', async () => {
    const linear = new Linear([{ name: 'o', matrix: matrix([1, 1], 1) }]);
    using x = matrix([3, 4], 1);
    const before = linear.exchange([matrix([2, 0], 1)]);
    using changed = linear.forward(x);
    for (const other of linear.exchange(before)) other.dispose();
    using restored = linear.forward(x);
    expect([...(await changed.data()), ...(await restored.data())]).toEqual([6, 7]);
    expect(linear.parts.map(({ name }) => name)).toEqual(['o']);
    linear.dispose();
  });

  test('refuses parts that differ in input, and no parts', () => {
    const [a, b] = [matrix([1, 2], 1), matrix([1, 2, 3], 1)];
    expect(() => new Linear([{ name: 'a', matrix: a }, { name: 'b', matrix: b }])).toThrow(expect.objectContaining({ code: 'ERR_SHAPE' }));
    expect(() => new Linear([])).toThrow(expect.objectContaining({ code: 'ERR_ARGUMENT' }));
    a.dispose();
    b.dispose();
  });

  test('owns its matrices and bias', () => {
    const before = device.stats().tensors;
    const linear = new Linear([{ name: 'q', matrix: matrix([1, 2], 1) }], device.tensor(Float32Array.of(1)));
    linear.dispose();
    linear.dispose();
    expect(device.stats().tensors).toBe(before);
    using x = matrix([1, 2], 1);
    expect(() => linear.forward(x)).toThrow(expect.objectContaining({ code: 'ERR_DISPOSED' }));
  });
});
