import type { Numbers } from './numbers.ts';

export interface EmbeddingArgs {
  ids: Numbers; // [T]
  table: Numbers; // [V, C]
  positions?: Numbers | undefined; // [T]
  positionTable?: Numbers | undefined; // [P, C]
  T: number;
  C: number;
}

/** y [T, C]: row ids[t] of the table, plus row positions[t] of the position table where there is one. Both are frozen. */
export function embedding({ ids, table, positions, positionTable, T, C }: EmbeddingArgs): Float64Array {
  const y = new Float64Array(T * C);
  for (let t = 0; t < T; t++) {
    for (let c = 0; c < C; c++) {
      y[t * C + c] = table[ids[t]! * C + c]! + (positions && positionTable ? positionTable[positions[t]! * C + c]! : 0);
    }
  }
  return y;
}
