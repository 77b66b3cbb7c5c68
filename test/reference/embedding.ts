import type { Numbers } from './numbers.ts';

/** y [T, C]: row ids[t] of the table [V, C]. The table is frozen and ids have no gradient. */
export function embedding({ ids, table, T, C }: { ids: Numbers; table: Numbers; T: number; C: number }): Float64Array {
  const y = new Float64Array(T * C);
  for (let t = 0; t < T; t++) {
    for (let c = 0; c < C; c++) y[t * C + c] = table[ids[t]! * C + c]!;
  }
  return y;
}
