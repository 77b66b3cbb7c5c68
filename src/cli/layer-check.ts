import { LowrankError } from '../error.ts';
import type { Tensor } from '../tensor.ts';
import type { LayerShape } from './layer-work.ts';
import { type Noise, noiseSpread } from './noise.ts';

/** What a layer was given, and what it made of it. */
export type Operands = Readonly<Record<'w' | 'x' | 'dy' | 'a' | 'b', Noise>>;
export type Results = Readonly<Record<'y' | 'dx' | 'da' | 'db', Tensor>>;

/** Of every adapter that is timed. */
export const adapterScale = 2;

// Spread of a product of two operands, and of three with the adapter's scale.
const [two, three] = [noiseSpread ** 2, adapterScale * noiseSpread ** 3];

/** More multiplications than this to know one element of dA: one place is looked at instead of three. */
const many = 2 ** 26;

/**
 * Some elements of y, dx, dA and dB, computed in f64 of numbers that are known. Rows of y and dx are all that is fetched of them.
 *
 * @throws LowrankError ERR_INTERNAL where one is off by more than two hundredths of what such numbers usually are: more than bf16 rounds,
 * less than any mistake makes.
 */
export async function checkLayer(shape: LayerShape, operands: Operands, results: Results): Promise<void> {
  const { T, K, N, r, parts = [N] } = shape;
  const middle = (n: number): number => Math.floor((2 * n) / 3);
  const middles = [middle(T), middle(K), middle(N), middle(r)] as const;
  const places = T * Math.max(K, N) > many ? [middles] : [[0, 0, 0, 0] as const, [T - 1, K - 1, N - 1, r - 1] as const, middles];
  const [da, db] = [await results.da.data(), await results.db.data()];
  for (const [t, k, n, j] of places) {
    const part = partOf(parts, n);
    const exact = exactLayer(shape, operands, part);
    expectNear('y', (await rowOf(results.y, t))[n], exact.y(t, n), two * Math.sqrt(K));
    expectNear('dx', (await rowOf(results.dx, t))[k], exact.dx(t, k), two * Math.sqrt(N));
    expectNear('dA', da[(part.index * r + j) * K + k], exact.da(j, k), three * Math.sqrt(part.rows * T));
    expectNear('dB', db[n * r + j], exact.db(n, j), three * Math.sqrt(K * T));
  }
}

/** One row of a matrix, without fetching the others. */
export async function rowOf(matrix: Tensor, row: number): Promise<Float32Array> {
  using view = matrix.view([matrix.cols], row * matrix.cols);
  return view.data();
}

interface Part {
  readonly index: number;
  readonly begin: number;
  readonly rows: number;
}

function partOf(parts: readonly number[], n: number): Part {
  let begin = 0;
  for (const [index, rows] of parts.entries()) {
    if (n < begin + rows) return { index, begin, rows };
    begin += rows;
  }
  throw new LowrankError('ERR_INTERNAL', `lora_linear: row ${n} must be one of ${begin}`);
}

/** The layer's numbers one by one; rows n, and those of dA, are of `part`. */
function exactLayer({ T, K, N, r, parts = [N] }: LayerShape, { w, x, dy, a, b }: Operands, part: Part) {
  const rowOfA = ({ index }: Part, j: number): Float32Array => a.fill(K, (index * r + j) * K);
  // B is flat, part after part; all have rank r.
  const columnOfB = ({ begin, rows }: Part, j: number): Float32Array => Float32Array.from({ length: rows }, (_, n) => b.at((begin + n) * r + j));
  const u = (t: number, row: Float32Array): number => adapterScale * x.dot(t * K, row);
  const v = (t: number, { begin }: Part, column: Float32Array): number => adapterScale * dy.dot(t * N + begin, column);
  const all = parts.map((rows, index): Part => ({ index, rows, begin: sum(index, (i) => parts[i] as number) }));
  return {
    y: (t: number, n: number): number => sum(K, (k) => x.at(t * K + k) * w.at(n * K + k)) + sum(r, (j) => u(t, rowOfA(part, j)) * b.at(n * r + j)),
    dx: (t: number, k: number): number =>
      sum(N, (n) => dy.at(t * N + n) * w.at(n * K + k)) + all.reduce((total, each) => total + sum(r, (j) => v(t, each, columnOfB(each, j)) * a.at((each.index * r + j) * K + k)), 0),
    da(j: number, k: number): number {
      const column = columnOfB(part, j);
      return sum(T, (t) => v(t, part, column) * x.at(t * K + k));
    },
    db(n: number, j: number): number {
      const row = rowOfA(part, j);
      return sum(T, (t) => dy.at(t * N + n) * u(t, row));
    },
  };
}

function sum(count: number, term: (i: number) => number): number {
  let total = 0;
  for (let i = 0; i < count; i++) total += term(i);
  return total;
}

function expectNear(what: string, found: number | undefined, wanted: number, usual: number): void {
  if (found !== undefined && Math.abs(found - wanted) <= usual / 50) return;
  throw new LowrankError('ERR_INTERNAL', `lora_linear: ${what} must be ${wanted} within ${(usual / 50).toPrecision(2)} (found ${String(found)})`);
}
