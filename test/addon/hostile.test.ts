import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Device, MappedFile, openDevice } from '../../src/device.ts';
import type { ErrorCode } from '../../src/error.ts';
import { launch } from '../../src/kernel.ts';
import { addon } from '../../src/native.ts';

const folder = mkdtempSync(path.join(tmpdir(), 'lowrank-hostile-'));
const file = path.join(folder, 'numbers.bin');
let device: Device;
beforeAll(async () => {
  writeFileSync(file, new Uint8Array(Float32Array.of(1, 2, 3, 4).buffer));
  device = await openDevice('cpu');
});
afterAll(() => {
  device.close();
  rmSync(folder, { recursive: true });
});

const coded = (code: ErrorCode): unknown => expect.objectContaining({ code });

it.each([1, 2])('no random call ends the process, and every refusal has a code (seed %i)', (seed) => {
  const child = fileURLToPath(new URL('hostile.child.mjs', import.meta.url));
  const { status, signal, stdout } = spawnSync(process.execPath, [child, String(seed), '20000'], { encoding: 'utf8' });
  expect({ status, signal }).toEqual({ status: 0, signal: null });
  const { done, refused, codeless } = JSON.parse(stdout) as { done: number; refused: number; codeless: string[] };
  expect(codeless).toEqual([]);
  expect(Math.min(done, refused)).toBeGreaterThan(1000);
});

describe('a tensor in a mapped file is only read', () => {
  it.each([
    ['an output', (t: number) => addon().ops['fill']?.(t, 0)],
    ['an output, by a view of it', (t: number) => addon().ops['fill']?.(addon().view(t, 1, 2), 0)],
    ['an upload', (t: number) => addon().upload(t, new Float32Array(4))],
  ])('as %s it is refused', (_, write) => {
    using mapped = new MappedFile(file);
    using tensor = device.mapped(mapped, 'f32', 0, [4]);
    expect(() => write(tensor.handle)).toThrow(coded('ERR_ARGUMENT'));
  });
});

describe('two devices', () => {
  it('a weight holds tensors of its own device only', async () => {
    await using other = await openDevice('cpu');
    using part = other.empty([2, 2]);
    expect(() => device.weight([part])).toThrow(coded('ERR_DEVICE'));
  });
  it('a device writes tensors of its own only', async () => {
    await using other = await openDevice('cpu');
    using tensor = other.empty([2]);
    await expect(device.writeFile(path.join(folder, 'out'), new Uint8Array(1), [tensor])).rejects.toMatchObject({ code: 'ERR_DEVICE' });
  });
});

describe('numbers that would overflow inside', () => {
  it('ranks whose sum comes out small again', () => {
    const huge = 2 ** 63 - 1024;
    using w = device.weight([device.empty([2, 3]), device.empty([2, 3]), device.empty([2, 3])]);
    const [y, u, x, a, b] = [[5, 6], [5, 4], [5, 3], [4, 3], [8]].map((dims) => device.empty(dims));
    const none = [0, 0, 0];
    for (const ranks of [[huge, huge, 2052], [2 ** 53, 2 ** 53, 4]]) {
      expect(() => launch('lora_linear', y!, u!, x!, w, null, null, a!, b!, ...ranks, 1, 1, 1, ...none, 0, 0, 0, 0)).toThrow(/rank0 must|A must be \[R, K\]/);
    }
  });
  it('a cache row whose sum with T turns negative', () => {
    const [y, keys, values, qkv] = [[2000, 2], [4, 2], [4, 2], [2000, 6]].map((dims) => device.empty(dims));
    expect(() => launch('attention_cache', y!, keys!, values!, qkv!, 1, 1, 2 ** 63 - 1024, 0, 1)).toThrow(coded('ERR_ARGUMENT'));
  });
  it('an empty tensor whose rows do not fit 64 bits', () => {
    expect(() => device.empty([2 ** 40, 2 ** 40, 0])).toThrow(coded('ERR_MEMORY'));
  });
});

describe('what JavaScript can hand over', () => {
  it('a toString that closes the device under the call is never run', () => {
    const id = addon().open('cpu', 0, 0, 0, 0, 0);
    const closes = { toString: () => (addon().close(id), 'x'), valueOf: () => (addon().close(id), 1) };
    const write = addon().writeFile as unknown as (...operands: unknown[]) => unknown;
    expect(() => write(id, closes, new Uint8Array(1), [])).toThrow(coded('ERR_ARGUMENT'));
    expect(() => write(id, 'x', new Uint8Array(1), [closes])).toThrow(coded('ERR_ARGUMENT'));
    expect(() => write(id, 'x', [1], [])).toThrow(coded('ERR_ARGUMENT'));
    expect(addon().stats(id).tensors).toBe(0);
    addon().close(id);
  });
  it('a detached buffer has no bytes', () => {
    using tensor = device.empty([4]);
    const data = new Float32Array(4);
    structuredClone(data, { transfer: [data.buffer] });
    expect(() => tensor.upload(data)).toThrow('upload: the tensor has 16 bytes (found 0)');
  });
  it('shared memory uploads like any other', async () => {
    using tensor = device.empty([3]);
    const data = new Float32Array(new SharedArrayBuffer(16), 4);
    data.set([5, 6, 7]);
    tensor.upload(data);
    expect([...(await tensor.data())]).toEqual([5, 6, 7]);
  });
  it('a path with a zero in it names no file', () => {
    expect(() => addon().map(`${file}\0.safetensors`)).toThrow(coded('ERR_ARGUMENT'));
  });
  it('a folder is no file', () => {
    expect(() => new MappedFile(folder)).toThrow(coded('ERR_FILE'));
  });
});

it('tensors and data that do not fit leave nothing behind', () => {
  const before = device.stats().tensors;
  expect(() => device.tensor(new Float32Array(3), [4])).toThrow(coded('ERR_SHAPE'));
  expect(device.stats().tensors).toBe(before);
});

it('a closed device answers with its code', async () => {
  const other = await openDevice('cpu');
  other.close();
  expect(() => other.resetPeak()).toThrow(coded('ERR_DISPOSED'));
});

it('LOWRANK_TRACE: the second device of a process writes a file of its own, and both are JSON', () => {
  const trace = path.join(folder, 'trace.json');
  const native = fileURLToPath(new URL('../../build/Release/lowrank.node', import.meta.url));
  const script = `const n = require(${JSON.stringify(native)}); for (const id of [n.open('cpu', 0, 0, 0, 0, 0), n.open('cpu', 0, 0, 0, 0, 0)]) {
    n.ops.fill(n.alloc(id, 0, 4), 1); n.fence(id); }`;
  expect(spawnSync(process.execPath, ['-e', script], { env: { ...process.env, LOWRANK_TRACE: trace } }).status).toBe(0);
  for (const name of [trace, `${trace}.2`]) {
    expect((JSON.parse(readFileSync(name, 'utf8')) as { name?: string }[]).map((event) => event.name)).toEqual(['fill', undefined]);
  }
});
