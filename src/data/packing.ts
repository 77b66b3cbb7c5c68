/**
 * First-fit packing: each item goes into the first row that still has room for it, else into a new row.
 * The first row with enough room is found in a segment tree of the free space, so n items take n log n steps.
 *
 * @param order which items, in the order in which they are placed
 * @param lengthOf tokens of an item; one longer than `capacity` gets a row of its own
 * @returns rows of items: rows in order of opening, items in order of arrival
 */
export function firstFit(order: ArrayLike<number>, lengthOf: (item: number) => number, capacity: number): number[][] {
  const leaves = 2 ** Math.ceil(Math.log2(Math.max(1, order.length)));
  const free = new Float64Array(2 * leaves).fill(capacity); // free[1] is the root; leaf r is free[leaves + r]
  const rows: number[][] = [];
  for (let i = 0; i < order.length; i++) {
    const item = order[i]!;
    const length = Math.min(lengthOf(item), capacity);
    const row = firstWithRoom(free, leaves, length);
    (rows[row] ??= []).push(item);
    take(free, leaves + row, length);
  }
  return rows;
}

function firstWithRoom(free: Float64Array, leaves: number, length: number): number {
  let node = 1;
  while (node < leaves) node = free[2 * node]! >= length ? 2 * node : 2 * node + 1;
  return node - leaves;
}

function take(free: Float64Array, leaf: number, length: number): void {
  free[leaf]! -= length;
  for (let node = leaf >> 1; node >= 1; node >>= 1) free[node] = Math.max(free[2 * node]!, free[2 * node + 1]!);
}
