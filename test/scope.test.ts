import { expect, test } from 'vitest';
import { LowrankError } from '../src/error.ts';
import { add } from '../src/ops/elementwise.ts';
import { isTemporary, keep, scope } from '../src/scope.ts';
import type { Tensor } from '../src/tensor.ts';
import { onCpu } from './on-cpu.ts';

const cpu = onCpu();

test('scope: what is returned stays, what is not is gone', () => {
  let inner: Tensor | undefined;
  const outer = scope(() => {
    inner = cpu.device.empty([2]);
    return cpu.device.empty([3]);
  });
  expect([inner?.disposed, outer.disposed]).toEqual([true, false]);
  outer.dispose();
});

test('scope: each tensor of a returned array stays', () => {
  const pair = scope(() => [cpu.device.empty([1]), cpu.device.empty([2])]);
  expect(pair.map((tensor) => tensor.disposed)).toEqual([false, false]);
  pair.forEach((tensor) => tensor.dispose());
});

test('scope: a result goes to the enclosing scope, which disposes of it', () => {
  let result: Tensor | undefined;
  scope(() => {
    result = scope(() => cpu.device.empty([2]));
    expect(isTemporary(result)).toBe(true);
  });
  expect(result?.disposed).toBe(true);
});

test('scope: keep takes a tensor out, so that it outlives all scopes', () => {
  let kept: Tensor | undefined;
  scope(() => scope(() => void (kept = keep(cpu.device.empty([2])))));
  expect(kept?.disposed).toBe(false);
  kept?.dispose();
});

test('scope: a tensor from outside that is returned is not taken over', () => {
  using outside = cpu.device.empty([2]);
  expect(scope(() => outside)).toBe(outside);
  expect(isTemporary(outside)).toBe(false);
});

test('scope: an error leaves nothing behind and the next scope works', () => {
  let lost: Tensor | undefined;
  expect(() => scope(() => {
    lost = cpu.device.empty([2]);
    throw new Error('stop');
  })).toThrow('stop');
  expect(lost?.disposed).toBe(true);
  using next = scope(() => cpu.device.empty([1]));
  expect(isTemporary(next)).toBe(false);
});

test('scope: temporaries of a long chain leave one result, with the right numbers', async () => {
  using x = cpu.device.tensor(Float32Array.of(1, -2));
  const before = cpu.device.stats().tensors;
  using y = scope(() => Array.from({ length: 10 }).reduce<Tensor>((sum) => add(sum, x), x));
  expect(cpu.device.stats().tensors).toBe(before + 1);
  expect([...(await y.data())]).toEqual([11, -22]);
});

test('a disposed tensor: every use throws ERR_DISPOSED and says its shape', async () => {
  const x = cpu.device.empty([2, 3]);
  x.dispose();
  x.dispose(); // twice is once
  const uses = [() => add(x, x), () => x.view([6]), () => x.upload(new Float32Array(6)), () => x.handle];
  for (const use of uses) expect(use).toThrow(expect.objectContaining({ code: 'ERR_DISPOSED', message: expect.stringContaining('[2,3]') }));
  await expect(x.data()).rejects.toBeInstanceOf(LowrankError);
});

test('a view: keeps its bytes when the tensor it was made of is disposed', async () => {
  const x = cpu.device.tensor(Float32Array.of(1, 2, 3));
  using tail = x.view([2], 1);
  x.dispose();
  using other = cpu.device.tensor(Float32Array.of(9, 9, 9)); // would get the block, were it free
  expect([...(await tail.data()), other.size]).toEqual([2, 3, 3]);
});
