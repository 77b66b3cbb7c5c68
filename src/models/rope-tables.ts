import type { Device } from '../device.ts';
import { keep } from '../scope.ts';
import type { Tensor } from '../tensor.ts';
import { frequencyLength, ropeFrequencies, type RopeSettings, ropeTable } from './rope.ts';

/**
 * Sets of frequencies that are kept at a time. Only dynamic rope past its original length has more than two: one for every
 * length. A recorded pass may still need its table on the way back, hence more than the one in use.
 */
const setsKept = 8;

/** The tables of one model, [P, E] on the device, made for the longest sequence so far. */
export interface RopeTables {
  /** A table of at least `length` rows for sequences of that length. It stays the model's. */
  for(length: number): Tensor;
  dispose(): void;
}

/** Makes no table yet. */
export function ropeTables(device: Device, rope: RopeSettings): RopeTables {
  const sets = new Map<number, Tensor[]>(); // by what decides about the frequencies; the largest table last

  const grow = (length: number, key: number, tables: readonly Tensor[]): Tensor => {
    const rows = rope.scaling.type === 'dynamic' && key > rope.maxPositions ? length : rowsFor(length, tables.at(-1)?.rows ?? 0);
    return keep(device.tensor(ropeTable(ropeFrequencies(rope, length), rows), [rows, rope.size]));
  };
  return {
    for(length) {
      const key = frequencyLength(rope, length);
      const tables = sets.get(key) ?? [];
      const last = tables.at(-1);
      if (last !== undefined && last.rows >= length) return last;
      // Shorter tables stay: what was recorded with them goes back with them. Doubling bounds what they take together.
      const table = grow(length, key, tables);
      sets.set(key, [...tables, table]);
      forgetOldest(sets);
      return table;
    },
    dispose() {
      for (const table of [...sets.values()].flat()) table.dispose();
      sets.clear();
    },
  };
}

function rowsFor(length: number, before: number): number {
  return Math.max(Math.ceil(length / 64) * 64, 2 * before);
}

function forgetOldest(sets: Map<number, Tensor[]>): void {
  const [oldest] = sets.keys();
  if (sets.size <= setsKept || oldest === undefined) return;
  for (const table of sets.get(oldest) ?? []) table.dispose();
  sets.delete(oldest);
}
