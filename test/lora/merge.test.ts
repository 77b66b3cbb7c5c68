import { describe, expect, test } from 'vitest';
import { attachLora } from '../../src/lora/attach.ts';
import { mergeAdapter } from '../../src/lora/merge.ts';
import { activeAdapter, adaptersOf, setAdapter } from '../../src/lora/model-adapters.ts';
import type { Adapter } from '../../src/lora/adapter.ts';
import type { Model } from '../../src/models/model.ts';
import { scope } from '../../src/scope.ts';
import { onCpu } from '../on-cpu.ts';
import { normals, worst } from '../reference/finite-difference.ts';
import { smallModel, type SmallModelOptions } from './small-model.ts';

const cpu = onCpu();

async function withAdapter(options: SmallModelOptions, body: (model: Model, adapter: Adapter) => Promise<void>): Promise<void> {
  const model = smallModel(cpu.device, options);
  const adapter = attachLora(model, { rank: 2, alpha: 3, targets: ['q_proj', 'v_proj', 'down_proj', 'lm_head'] });
  adapter.parameters().parameters.upload(Float32Array.from(normals(adapter.parameters().size, 1), (x) => 0.3 * x));
  await body(model, adapter);
  for (const each of adaptersOf(model)) each.dispose();
  model.dispose();
}

async function logitsOf(model: Model): Promise<Float32Array> {
  using ids = cpu.device.tensor(Int32Array.of(1, 5, 9, 2));
  using logits = scope(() => model.logits(model.hidden({ ids, positions: ids, offsets: ids, length: 10 })));
  return logits.data();
}

const matricesOf = (model: Model) => model.linears.flatMap(({ parts }) => parts.map(({ matrix }) => matrix));
const bytesOf = (model: Model) => Promise.all(matricesOf(model).map(async (matrix) => Buffer.from(await matrix.bytes())));

describe.each([
  [{ dtype: 'f32', order: 'out_in' }, 1e-5],
  [{ dtype: 'f32', order: 'in_out' }, 1e-5],
  [{ dtype: 'f16', order: 'out_in' }, 5e-3],
  [{ dtype: 'bf16', order: 'in_out' }, 5e-2],
] as const)('merging into %o', (options, tolerance) => {
  test('gives the adapter\'s logits without the adapter, in the base\'s dtype', () => withAdapter(options, async (model, adapter) => {
    const adapted = await logitsOf(model);
    setAdapter(model, null);
    const base = await logitsOf(model);
    const merged = mergeAdapter(model, adapter);
    expect(activeAdapter(model)).toBeNull();
    expect(worst(await logitsOf(model), adapted)).toBeLessThan(tolerance);
    expect(worst(base, adapted)).toBeGreaterThan(4 * tolerance);
    expect(matricesOf(model).every(({ dtype }) => dtype === options.dtype)).toBe(true);
    merged.unmerge();
  }));

  test('unmerge brings back the very matrices, bit for bit, and the active adapter', () => withAdapter(options, async (model, adapter) => {
    const [before, bytes, adapted] = [matricesOf(model), await bytesOf(model), await logitsOf(model)];
    const live = cpu.device.stats().tensors;
    const merged = mergeAdapter(model, adapter);
    expect(matricesOf(model).filter((matrix, i) => matrix === before[i]).length).toBe(2); // k of each layer has no adapter
    merged.unmerge();
    merged.unmerge();
    merged.dispose();
    expect(matricesOf(model).every((matrix, i) => matrix === before[i])).toBe(true);
    expect(cpu.device.stats().tensors).toBe(live);
    expect((await bytesOf(model)).map((each, i) => Buffer.compare(each, bytes[i]!))).toEqual(bytes.map(() => 0));
    expect(activeAdapter(model)).toBe(adapter);
    expect(await logitsOf(model)).toEqual(adapted);
  }));
});

describe('while an adapter is merged', () => {
  test('merging, attaching and activating are refused with the way out', () => withAdapter({}, async (model, adapter) => {
    const merged = mergeAdapter(model, adapter);
    for (const act of [() => mergeAdapter(model, adapter), () => attachLora(model, { name: 'b' }), () => setAdapter(model, 'default')]) {
      expect(act).toThrow(expect.objectContaining({ code: 'ERR_ARGUMENT', message: expect.stringContaining('unmerge()') }));
    }
    setAdapter(model, null);
    merged.unmerge();
    mergeAdapter(model, adapter).unmerge(); // and then they aren't
  }));

  test('dispose keeps the merged weights for good, and others can be attached to them', () => withAdapter({}, async (model, adapter) => {
    const adapted = await logitsOf(model);
    const live = cpu.device.stats().tensors;
    mergeAdapter(model, adapter).dispose();
    expect(cpu.device.stats().tensors).toBe(live);
    expect(worst(await logitsOf(model), adapted)).toBeLessThan(1e-5);
    attachLora(model, { name: 'next' });
  }));

  test('the adapter can be disposed of, and unmerge still works', () => withAdapter({}, async (model, adapter) => {
    const before = matricesOf(model);
    const merged = mergeAdapter(model, adapter);
    adapter.dispose();
    merged.unmerge();
    expect(matricesOf(model).every((matrix, i) => matrix === before[i])).toBe(true);
    expect(activeAdapter(model)).toBeNull();
  }));
});

test('mergeAdapter: another model\'s adapter and a disposed one are refused, and nothing changes', () => withAdapter({}, async (model, adapter) => {
  const other = smallModel(cpu.device);
  expect(() => mergeAdapter(other, adapter)).toThrow(/of this model/);
  other.dispose();
  adapter.dispose();
  expect(() => mergeAdapter(model, adapter)).toThrow(expect.objectContaining({ code: 'ERR_DISPOSED' }));
}));
