import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Device, MappedFile, openDevice, Weight, type WeightOrder } from '../../src/device.ts';
import { launch } from '../../src/kernel.ts';
import { addon } from '../../src/native.ts';
import { Linear } from '../../src/nn/linear.ts';
import { loraMerge } from '../../src/ops/lora_merge.ts';
import { type DType, dtypes, Tensor } from '../../src/tensor.ts';
import { normals } from '../reference/finite-difference.ts';
import { bf16Bits, bf16Value, f16Bits, f16Value } from '../reference/half.ts';
import { count, kind, why } from './tested-device.ts';

if (count === 0) console.warn(`frozen weights on ${kind}: not tested (${why.split(':')[0]})`);

const folder = mkdtempSync(path.join(tmpdir(), 'lowrank-frozen-'));
afterAll(() => rmSync(folder, { recursive: true }));
const checkedPlugin = fileURLToPath(new URL('../../build/Release/liblowrank_cusim_checked.so', import.meta.url));

const numbers = (size: number, seed: number): number[] => [...normals(size, seed)];

function encode(values: readonly number[], dtype: DType): Uint8Array {
  if (dtype === 'f32') return new Uint8Array(Float32Array.from(values).buffer);
  return new Uint8Array(Uint16Array.from(values, dtype === 'f16' ? f16Bits : bf16Bits).buffer);
}

function rounded(values: readonly number[], dtype: DType): number[] {
  if (dtype === 'f32') return values.map(Math.fround);
  return values.map((x) => (dtype === 'f16' ? f16Value(f16Bits(x)) : bf16Value(bf16Bits(x))));
}

interface Stored {
  readonly order: WeightOrder;
  readonly dtype: DType;
  readonly outs: readonly number[];
  readonly K: number;
}

let files = 0;

/** The parts in a file, 3 bytes behind its begin: nothing says that a tensor is aligned there. */
function mapParts(device: Device, { order, dtype, outs, K }: Stored, values: readonly (readonly number[])[]): Tensor[] {
  const file = path.join(folder, `${files++}.bin`);
  const encoded = values.map((each) => encode(each, dtype));
  writeFileSync(file, Buffer.concat([Buffer.alloc(3), ...encoded]));
  using mapped = new MappedFile(file);
  let at = 3;
  return outs.map((out, i) => {
    const tensor = device.mapped(mapped, dtype, at, order === 'out_in' ? [out, K] : [K, out]);
    at += (encoded[i] as Uint8Array).length;
    return tensor;
  });
}

function uploadParts(device: Device, { order, outs, K }: Stored, dtype: DType, values: readonly (readonly number[])[]): Tensor[] {
  return outs.map((out, i) => {
    const tensor = device.empty(order === 'out_in' ? [out, K] : [K, out], dtype);
    tensor.upload(encode(values[i] as number[], dtype));
    return tensor;
  });
}

/** With a border, as 16-bit activations want it. */
function bordered(device: Device, parts: readonly Tensor[], order: WeightOrder, dtype: DType): Weight {
  const handle = addon().weight(device.id, order === 'out_in' ? 0 : 1, dtypes.indexOf(dtype), ...parts.map((part) => part.handle));
  return new Weight(device, handle, parts, order);
}

/** y = x W^T and dx = y W. */
async function products(device: Device, weight: Weight, rows: number): Promise<Float32Array[]> {
  using x = device.tensor(Float32Array.from(normals(rows * weight.in, 9)), [rows, weight.in]);
  using y = device.empty([rows, weight.rows]);
  using dx = device.empty([rows, weight.in]);
  launch('linear', y, x, weight, null, null);
  launch('linear_grad', dx, y, weight);
  return [await y.data(), await dx.data()];
}

const stored: readonly Stored[] = [
  { order: 'out_in', dtype: 'bf16', outs: [5, 3, 9], K: 37 },
  { order: 'in_out', dtype: 'bf16', outs: [5, 3, 9], K: 37 },
  { order: 'out_in', dtype: 'f16', outs: [64], K: 64 },
  { order: 'in_out', dtype: 'f32', outs: [33, 2], K: 70 },
  { order: 'out_in', dtype: 'f32', outs: [33, 2], K: 70 },
];

describe.skipIf(count === 0).each(kind === 'cuda' ? ['fast'] : ['fast', 'checked'])(`frozen weights on a device with memory of its own (${kind}, %s)`, (mode) => {
  let device: Device;
  beforeAll(async () => {
    const before = process.env['LOWRANK_CUSIM_PLUGIN'];
    if (mode === 'checked') process.env['LOWRANK_CUSIM_PLUGIN'] = checkedPlugin;
    device = await openDevice(kind, { activations: 'f32' });
    if (before === undefined) delete process.env['LOWRANK_CUSIM_PLUGIN'];
    else process.env['LOWRANK_CUSIM_PLUGIN'] = before;
  });
  afterAll(() => device.close());

  it.each(stored)('are in products what the file holds, with a border too: %o', async (form) => {
    const values = form.outs.map((out, i) => numbers(out * form.K, i + 1).map((x) => 0.1 * x));
    const live = device.stats();
    const target = form.dtype === 'f16' ? 'f16' : 'bf16';
    const asStored = uploadParts(device, form, form.dtype, values);
    const converted = uploadParts(device, form, target, values.map((each) => rounded(rounded(each, form.dtype), target)));
    const mapped = mapParts(device, form, values);
    const weights = {
      plain: [device.weight(asStored, form.order), device.weight(mapped, form.order)],
      bordered: [device.weight(converted, form.order), bordered(device, mapped, form.order, target), bordered(device, asStored, form.order, target)],
    };
    for (const [first, ...others] of [weights.plain, weights.bordered]) {
      const want = await products(device, first as Weight, 7);
      for (const other of others) expect(await products(device, other, 7)).toEqual(want);
    }
    for (const owner of [...asStored, ...converted, ...mapped, ...weights.plain, ...weights.bordered]) owner.dispose();
    const { tensors, liveBytes } = device.stats();
    expect([tensors, liveBytes]).toEqual([live.tensors, live.liveBytes]);
  });

  it.each([['plain', 40 * 64 * 2], ['bordered', (40 + 64) * 128 * 2]])('a mapped matrix is on the device once, as a weight and as a table: %s', async (kind, bytes) => {
    const form: Stored = { order: 'out_in', dtype: 'bf16', outs: [40], K: 64 };
    const values = numbers(40 * 64, 5);
    const live = device.stats().liveBytes;
    const [table] = mapParts(device, form, [values]) as [Tensor];
    expect(device.stats().liveBytes, 'mapped').toBe(live);
    expect(await table.data()).toEqual(Float32Array.from(rounded(values, 'bf16')));
    expect(device.stats().liveBytes, 'read by the host').toBe(live);
    const weight = kind === 'plain' ? device.weight([table]) : bordered(device, [table], 'out_in', 'bf16');
    expect(device.stats().liveBytes, 'a weight').toBe(live + bytes);
    const embed = async (): Promise<void> => {
      using y = device.empty([2, 64]);
      using ids = device.tensor(Int32Array.of(39, 3));
      launch('embedding', y, ids, table, null, null);
      expect(await y.data()).toEqual(Float32Array.from([...rounded(values, 'bf16').slice(39 * 64), ...rounded(values, 'bf16').slice(3 * 64, 4 * 64)]));
    };
    await embed();
    expect(device.stats().liveBytes, 'a weight and a table').toBe(live + bytes);
    weight.dispose();
    await embed();
    expect(device.stats().liveBytes, 'a table').toBe(live + 40 * 64 * 2);
    table.dispose();
    expect(device.stats().liveBytes).toBe(live);
  });

  it('merged matrices take the place of mapped ones, beside one that stays, and give it back', async () => {
    const form: Stored = { order: 'out_in', dtype: 'bf16', outs: [8, 6], K: 16 };
    const values = form.outs.map((out, i) => numbers(out * form.K, i + 1));
    const linear = new Linear(mapParts(device, form, values).map((matrix, i) => ({ name: `part${i}`, matrix })));
    const [q, k] = linear.parts.map(({ matrix }) => matrix) as [Tensor, Tensor];
    using a = device.tensor(Float32Array.from(normals(2 * 16, 7)), [2, 16]);
    using b = device.tensor(Float32Array.from(normals(8 * 2, 8)), [8, 2]);
    using x = device.tensor(Float32Array.from(normals(3 * 16, 9)), [3, 16]);
    const y = async (): Promise<Float32Array> => {
      using out = linear.forward(x);
      return out.data();
    };
    const before = await y();
    using merged = loraMerge(q, a, b, 0.5, linear.order);
    linear.exchange([merged, k]);
    const [with_, want] = [await y(), await mergedByHost(q, a, b, 0.5)];
    expect(await merged.data()).toEqual(want);
    expect(with_).not.toEqual(before);
    expect(with_.filter((_, i) => i % 14 >= 8)).toEqual(before.filter((_, i) => i % 14 >= 8));
    linear.exchange([q, k]);
    expect(await y()).toEqual(before);
    linear.dispose();
  });

  it('a mapped matrix is lent to others as a copy on the device', async () => {
    const form: Stored = { order: 'out_in', dtype: 'bf16', outs: [6], K: 8 };
    const [matrix] = mapParts(device, form, [numbers(48, 4)]) as [Tensor];
    using weight = bordered(device, [matrix], 'out_in', 'bf16');
    const [handle, , ...shape] = addon().adopt(device.id, addon().lend(matrix.handle, 1), 1);
    using lent = new Tensor(device, handle, 'bf16', shape);
    using copy = device.empty(shape, 'bf16');
    launch('copy', copy, lent);
    expect([weight.rows, ...shape]).toEqual([6, 6, 8]);
    expect(await copy.data()).toEqual(await matrix.data());
    matrix.dispose();
  });

  it.each([['plain', false], ['bordered', true]])('merging reads a weight where it is: %s', async (_, border) => {
    for (const order of ['out_in', 'in_out'] as const) {
      const form: Stored = { order, dtype: 'bf16', outs: [8, 6], K: 16 };
      const values = form.outs.map((out, i) => numbers(out * form.K, i + 1));
      const [mapped, uploaded] = [mapParts(device, form, values), uploadParts(device, form, 'bf16', values)];
      using weight = border ? bordered(device, mapped, order, 'bf16') : device.weight(mapped, order);
      using a = device.tensor(Float32Array.from(normals(2 * 16, 7)), [2, 16]);
      using b = device.tensor(Float32Array.from(normals(6 * 2, 8)), [6, 2]);
      const live = device.stats().liveBytes;
      const merged = [mapped, uploaded].map((parts) => loraMerge(parts[1] as Tensor, a, b, 0.5, order));
      expect(device.stats().liveBytes - live, `${weight.rows} rows`).toBe(2 * 256);
      expect(await merged[0]?.data()).toEqual(await merged[1]?.data());
      for (const tensor of [...mapped, ...uploaded, ...merged]) tensor.dispose();
    }
  });

  it('what is greater than a piece of pinned memory arrives in several', async () => {
    const size = 2_700_001; // 10.8 MB of f32, in one row
    const values = Float32Array.from({ length: size }, (_, i) => i % 1999);
    const file = path.join(folder, 'long.bin');
    writeFileSync(file, values);
    using mapped = new MappedFile(file);
    using tensor = device.mapped(mapped, 'f32', 0, [1, size]);
    using copy = device.empty([1, size]);
    launch('copy', copy, tensor);
    expect(Buffer.compare(new Uint8Array(await copy.bytes()), new Uint8Array(values.buffer))).toBe(0);
  });

  it('what kernels take for themselves is counted: their reports, numbers of steps, and room to convert weights in', async () => {
    await using own = await openDevice(kind, { activations: 'f32' });
    const before = own.stats().kernelBytes;
    expect(before).toBe(4096 * 8 + 32 * 4);
    const [matrix] = mapParts(own, { order: 'out_in', dtype: 'f32', outs: [40], K: 64 }, [numbers(40 * 64, 5)]) as [Tensor];
    using weight = bordered(own, [matrix], 'out_in', 'bf16');
    await own.fence();
    expect([weight.rows, own.stats().kernelBytes]).toEqual([40, before + 4 * 40 * 64]);
    matrix.dispose();
  });

  it('a file that was made shorter is an error that names it', async () => {
    const file = path.join(folder, 'shorter.bin');
    writeFileSync(file, new Uint8Array(4 * 4096));
    using mapped = new MappedFile(file);
    using matrix = device.mapped(mapped, 'f32', 0, [64, 64]);
    truncateSync(file, 100);
    using weight = device.weight([matrix]);
    expect(weight.rows).toBe(64);
    await expect(device.fence()).rejects.toMatchObject({ code: 'ERR_FILE', message: expect.stringContaining(`${file}: must keep its length`) as string });
    await expect(matrix.data()).rejects.toMatchObject({ code: 'ERR_FILE' });
  });
});

async function mergedByHost(w: Tensor, a: Tensor, b: Tensor, scale: number): Promise<Float32Array> {
  const [W, A, B] = [await w.data(), await a.data(), await b.data()];
  const [K, r] = [w.cols, a.rows];
  return Float32Array.from(W, (value, i) => {
    let sum = 0;
    for (let j = 0; j < r; j++) sum += (B[Math.floor(i / K) * r + j] as number) * (A[j * K + (i % K)] as number);
    return bf16Value(bf16Bits(value + scale * sum));
  });
}
