import path from 'node:path';
import { makeBatch, type Batch } from '../../src/data/batch.ts';
import type { Adapter } from '../../src/lora/adapter.ts';
import { adapterKey } from '../../src/io/peft-keys.ts';
import { goldenPath, i32, readTensors, type GoldenTensor } from '../golden/read.ts';

/** A folder anywhere, as `readTensors` takes it: relative to the goldens. */
export function fromGoldens(folder: string): string {
  return path.relative(goldenPath(), folder);
}

/** Rows of padded ids, labels and mask as one packed batch: right padding is cut off. */
export function packRows(rows: readonly { ids: Int32Array; labels: Int32Array; mask: Int32Array }[]): Batch {
  return makeBatch(rows.map(({ ids, labels, mask }) => {
    const length = mask.lastIndexOf(1) + 1;
    return { inputIds: ids.slice(0, length), labels: labels.slice(0, length) };
  }));
}

/** `batches.safetensors` of a run: the micro-batches of each step, and those of the evaluation. */
export function readBatches(folder: string): { steps: Batch[][]; evaluation: Batch[] } {
  const tensors = readTensors(fromGoldens(folder), 'batches.safetensors');
  const [steps, micro, B] = tensors.get('input_ids')!.shape as [number, number, number, number];
  const evalRows = tensors.get('eval_input_ids')!.shape[0]!;
  return {
    steps: Array.from({ length: steps }, (_, s) => Array.from({ length: micro }, (_, m) => packRows(rowsOf(tensors, '', (s * micro + m) * B, B)))),
    evaluation: Array.from({ length: evalRows }, (_, row) => packRows(rowsOf(tensors, 'eval_', row, 1))),
  };
}

function rowsOf(tensors: Map<string, GoldenTensor>, prefix: string, first: number, count: number): { ids: Int32Array; labels: Int32Array; mask: Int32Array }[] {
  const T = tensors.get(`${prefix}input_ids`)!.shape.at(-1)!;
  const cut = (name: string, row: number): Int32Array => i32(tensors, prefix + name).subarray(row * T, (row + 1) * T);
  const mask = (row: number): Int32Array => (tensors.has(`${prefix}attention_mask`) ? cut('attention_mask', row) : new Int32Array(T).fill(1));
  return Array.from({ length: count }, (_, i) => ({ ids: cut('input_ids', first + i), labels: cut('labels', first + i), mask: mask(first + i) }));
}

/** Every matrix of an adapter by its key in PEFT's file, cut from the arena's parameters or gradients. */
export async function matricesOf(adapter: Adapter, what: 'parameters' | 'gradients'): Promise<Map<string, Float32Array>> {
  const values = await adapter.parameters()[what].data();
  return new Map(adapter.modules.flatMap(({ name, a, b, beginA, beginB }) => [
    [adapterKey(name, 'A'), values.subarray(beginA, beginA + a.size)] as const,
    [adapterKey(name, 'B'), values.subarray(beginB, beginB + b.size)] as const,
  ]));
}

/** ‖got − want‖ / ‖want‖ over all matrices together; the keys must be the same. */
export function relativeError(got: Map<string, Float32Array>, want: Map<string, GoldenTensor>): number {
  if ([...got.keys()].sort().join() !== [...want.keys()].sort().join()) return Infinity;
  let [apart, size] = [0, 0];
  for (const [key, { data }] of want) {
    data.forEach((x, i) => {
      apart += (got.get(key)![i]! - x) ** 2;
      size += x ** 2;
    });
  }
  return Math.sqrt(apart / size);
}

/** Largest |got − want|; other lengths are infinitely far. */
export function furthest(got: ArrayLike<number>, want: ArrayLike<number>): number {
  if (got.length !== want.length) return Infinity;
  let most = 0;
  for (let i = 0; i < want.length; i++) {
    const apart = Math.abs(got[i]! - want[i]!);
    if (!(apart <= most)) most = Number.isNaN(apart) ? Infinity : apart;
  }
  return most;
}
