import type { Device } from '../device.ts';
import { LowrankError } from '../error.ts';
import { cast, fillInplace, toActivation } from '../ops/elementwise.ts';
import { linear } from '../ops/linear.ts';
import { loraLinear } from '../ops/lora_linear.ts';
import { scope } from '../scope.ts';
import { Tape } from '../tape.ts';
import type { DType, Tensor } from '../tensor.ts';
import type { Work } from './turns.ts';

/** A layer W0 [N, K] with adapters of rank r over T tokens. */
export interface LayerShape {
  readonly T: number;
  readonly K: number;
  readonly N: number;
  readonly r: number;
}

export const layerName = ({ T, K, N, r }: LayerShape): string => `${T}×${K}→${N} r${r}`;

/** Multiplications and additions of the frozen layer: x W0ᵀ and dy W0. */
export const frozenFlops = ({ T, K, N }: LayerShape): number => 4 * T * K * N;

/** What the adapter's own arithmetic adds to the frozen layer's, as a factor: u, u Bᵀ, v, v A, dA, dB. */
export const flopFloor = ({ K, N, r }: LayerShape): number => 1 + (3 * r * (K + N)) / (2 * K * N);

/** A layer whose forward and backward pass can be timed: frozen (y, dx) and with an adapter (y, dx, dA, dB). */
export interface LayerWork {
  readonly frozen: Work;
  /** With dropout p. */
  lora(p: number): Work;
  /** Computes some elements of y, dx, dA and dB in f64 beside it. @throws LowrankError ERR_INTERNAL where they differ */
  check(): Promise<void>;
  dispose(): void;
}

const scale = 2;

/** Activations as the device stores them, W0 in `dtype`. */
export function makeLayerWork(device: Device, { T, K, N, r }: LayerShape, dtype: DType): LayerWork {
  const made: { dispose(): void }[] = [];
  const own = <D extends { dispose(): void }>(thing: D): D => (made.push(thing), thing);
  const stored = own(inDtype(device.tensor(noise(N * K, 1), [N, K]), dtype));
  const weight = own(device.weight([stored]));
  const [x, dy] = [own(asActivation(device.tensor(noise(T * K, 2), [T, K]))), own(asActivation(device.tensor(noise(T * N, 3), [T, N])))];
  const [a, b] = [own(device.tensor(noise(r * K, 4), [r, K])), own(device.tensor(noise(N * r, 5)))];
  const [da, db] = [own(a.like()), own(b.like())];
  const layer = { weight, bias: null };
  const lora = (p: number) => ({ a, b, da, db, ranks: [r], scales: [scale], dropout: { p, seed: 1, layers: [0], step: 0 } });
  const run = (forward: () => Tensor): [Tensor, Tensor] => {
    using tape = new Tape();
    tape.watch(x);
    const y = tape.record(forward);
    return [y, tape.backward(y, dy.view(dy.shape)).get(x) as Tensor];
  };
  const loraPass = (p: number): [Tensor, Tensor] => run(() => loraLinear(x, layer, lora(p)));
  const work = (pass: () => [Tensor, Tensor]): Work => () => scope(() => void pass().forEach((tensor) => tensor.dispose()));
  return {
    frozen: work(() => run(() => linear(x, layer))),
    lora: (p) => work(() => loraPass(p)),
    async check() {
      for (const gradient of [da, db]) fillInplace(gradient, 0);
      const [y, dx] = loraPass(0);
      const names = { w: stored, x, dy, a, b, y, dx, da, db };
      const values = await Promise.all(Object.entries(names).map(async ([name, tensor]) => [name, await tensor.data()] as const));
      for (const tensor of [y, dx]) tensor.dispose();
      checkSome({ T, K, N, r }, Object.fromEntries(values) as Record<keyof typeof names, Float32Array>);
    },
    dispose: () => made.forEach((thing) => thing.dispose()),
  };
}

function inDtype(wide: Tensor, dtype: DType): Tensor {
  if (dtype === 'f32') return wide;
  const narrow = cast(wide, dtype);
  wide.dispose();
  return narrow;
}

function asActivation(wide: Tensor): Tensor {
  if (wide.device.info.activations === 'f32') return wide;
  const narrow = toActivation(wide);
  wide.dispose();
  return narrow;
}

/** Numbers in [-1/8, 1/8), the same for the same seed. */
export function noise(count: number, seed: number): Float32Array {
  const values = new Float32Array(count);
  let state = seed >>> 0;
  for (let i = 0; i < count; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    values[i] = (state / 2 ** 32 - 0.5) / 4;
  }
  return values;
}

type Values = Readonly<Record<'w' | 'x' | 'dy' | 'a' | 'b' | 'y' | 'dx' | 'da' | 'db', Float32Array>>;

// Spread of a product of two operands, and of three with the adapter's scale.
const [two, three] = [(1 / 8) ** 2 / 3, (scale * (1 / 8) ** 3) / 3 ** 1.5];

function checkSome({ T, K, N, r }: LayerShape, { w, x, dy, a, b, y, dx, da, db }: Values): void {
  const at = (values: Float32Array, i: number): number => values[i] ?? NaN;
  const u = (t: number, j: number): number => scale * sum(K, (k) => at(x, t * K + k) * at(a, j * K + k));
  const v = (t: number, j: number): number => scale * sum(N, (n) => at(dy, t * N + n) * at(b, n * r + j));
  const middle = (n: number): number => Math.floor((2 * n) / 3);
  for (const [t, k, n, j] of [[0, 0, 0, 0], [T - 1, K - 1, N - 1, r - 1], [middle(T), middle(K), middle(N), middle(r)]] as const) {
    const yHere = sum(K, (i) => at(x, t * K + i) * at(w, n * K + i)) + sum(r, (i) => u(t, i) * at(b, n * r + i));
    const dxHere = sum(N, (i) => at(dy, t * N + i) * at(w, i * K + k)) + sum(r, (i) => v(t, i) * at(a, i * K + k));
    expectNear('y', at(y, t * N + n), yHere, two * Math.sqrt(K));
    expectNear('dx', at(dx, t * K + k), dxHere, two * Math.sqrt(N));
    expectNear('dA', at(da, j * K + k), sum(T, (i) => v(i, j) * at(x, i * K + k)), three * Math.sqrt(N * T));
    expectNear('dB', at(db, n * r + j), sum(T, (i) => at(dy, i * N + n) * u(i, j)), three * Math.sqrt(K * T));
  }
}

function sum(count: number, term: (i: number) => number): number {
  let total = 0;
  for (let i = 0; i < count; i++) total += term(i);
  return total;
}

// Two hundredths of what such numbers usually are: more than bf16 products round, less than any mistake makes.
function expectNear(what: string, found: number, wanted: number, usual: number): void {
  if (Math.abs(found - wanted) <= usual / 50) return;
  throw new LowrankError('ERR_INTERNAL', `lora_linear: ${what} must be ${wanted} within ${(usual / 50).toPrecision(2)} (found ${found})`);
}
