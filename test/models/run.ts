import { expect } from 'vitest';
import type { Device } from '../../src/device.ts';
import type { Model } from '../../src/models/model.ts';
import { scope } from '../../src/scope.ts';
import type { Tensor } from '../../src/tensor.ts';

/** Runs sequences as one packed batch; logits [T of all, V], flat. */
export async function logitsOf(model: Model, sequences: readonly ArrayLike<number>[], read: (hidden: Tensor) => Tensor = (hidden) => model.logits(hidden)): Promise<Float32Array> {
  const { device } = model;
  const logits = scope(() => {
    const lengths = sequences.map((sequence) => sequence.length);
    const offsets = lengths.reduce<number[]>((all, length) => [...all, (all.at(-1) as number) + length], [0]);
    const batch = {
      ids: device.tensor(Int32Array.from(sequences.flatMap((sequence) => [...Array.from(sequence)]))),
      positions: device.tensor(Int32Array.from(lengths.flatMap((length) => Array.from({ length }, (_, i) => i)))),
      offsets: device.tensor(Int32Array.from(offsets)),
      length: Math.max(...lengths),
    };
    return read(model.hidden(batch));
  });
  try {
    return await logits.data();
  } finally {
    logits.dispose();
  }
}

/** Runs one sequence through a cache in pieces of these lengths; logits [T, V], flat. */
export async function cachedLogits(model: Model, ids: readonly number[], pieces: readonly number[]): Promise<number[]> {
  const cache = model.newCache(ids.length);
  const rows: number[] = [];
  try {
    for (const piece of pieces) {
      const logits = scope(() => model.logits(model.decode(ids.slice(cache.length, cache.length + piece), cache, ids.length)));
      rows.push(...(await logits.data()));
      logits.dispose();
    }
  } finally {
    cache.dispose();
  }
  expect(cache.length).toBe(ids.length);
  return rows;
}

export function worst(got: ArrayLike<number>, want: ArrayLike<number>): number {
  expect(got.length).toBe(want.length);
  let most = 0;
  for (let i = 0; i < want.length; i++) {
    const gap = Math.abs(got[i]! - want[i]!);
    if (Number.isNaN(gap)) return NaN;
    most = Math.max(most, gap);
  }
  return most;
}

/** Live tensors of a device, for leak checks. */
export function live(device: Device): number {
  return device.stats().tensors;
}
