import { makeNoise, noiseSpread } from '../../src/cli/noise.ts';
import { deviceParty, type Party, spread, takeTurns, type Work } from '../../src/cli/turns.ts';
import type { Device, Weight } from '../../src/device.ts';
import { launch } from '../../src/kernel.ts';
import { fillInplace } from '../../src/ops/elementwise.ts';
import type { DType, Tensor } from '../../src/tensor.ts';
import type { Bench, BenchContext } from '../bench.ts';
import { peakParty } from '../peak.ts';
import { digits, type Row, withQuartiles } from '../table.ts';
import { timer } from '../time-left.ts';

/** One of the adapter's thin products over T tokens: u of x [T, wide], v and dB of dy [T, wide], dA of x [T, wide]; with dropout also dx [T, wide], which begins with a masked product. */
interface Shape {
  readonly T: number;
  readonly wide: number;
  readonly r: number;
}

const kinds = ['u', 'v and dB', 'dA', 'u, p 0.1', 'dA, p 0.1', 'dA and dx, p 0.1'] as const;
type Kind = (typeof kinds)[number];
const dropoutOf = (kind: Kind): number => (kind.endsWith('p 0.1') ? 0.1 : 0);

const narrow = 64; // of the side that should cost nothing
const gpuShapes: readonly Shape[] = [4096, 14336].flatMap((wide) => [16, 64].map((r): Shape => ({ T: 8192, wide, r })));

/** The kernels of the low-rank products, each nearly alone: GB/s of what it must read, over the rate of a copy. */
export const skinny: Bench = {
  about: 'u, v with dB, and dA alone, and with dropout: GB/s of what each must move over the copy rate; --shape TxWIDExr',
  usual: false,
  anyDevice: true,
  async run(context) {
    const time = timer('skinny', context.options.seconds);
    const rows: Row[] = [];
    for (const shape of chosenShapes(context)) if (time.allows(nameOf(shape))) rows.push(...(await measure(context, shape)));
    return { tables: { [`low-rank products, activations ${context.activations}`]: rows } };
  },
};

const nameOf = ({ T, wide, r }: Shape): string => `${T}×${wide} r${r}`;

function chosenShapes({ device, options: { shape } }: BenchContext): readonly Shape[] {
  if (shape === null) return device.kind === 'cpu' ? [{ T: 2048, wide: 4096, r: 16 }] : device.kind === 'cusim' ? [{ T: 24, wide: 40, r: 4 }] : gpuShapes;
  const [T, wide, r, more] = shape.split('x').map(Number);
  if (!T || !wide || !r || more !== undefined) throw new Error(`skinny: --shape must be TxWIDExr, such as 8192x4096x16 (found ${shape})`);
  return [{ T, wide, r }];
}

interface Product {
  readonly work: Work;
  /** Bytes that have to be read and written. */
  readonly bytes: number;
  check(): Promise<void>;
  dispose(): void;
}

async function measure({ device, activations, options, peak }: BenchContext, shape: Shape): Promise<Row[]> {
  const products: Product[] = [];
  const parties: Record<string, Party> = {};
  try {
    for (const kind of kinds) {
      const product = kind.startsWith('u') ? makeU(device, shape, activations, dropoutOf(kind)) : makeGradient(device, shape, activations, kind);
      products.push(product);
      await product.check();
      parties[kind] = deviceParty(device, product.work);
    }
    if (peak !== null) parties['copy'] = peakParty(peak, 'copy', device.info.threads);
    const samples = await takeTurns(parties, { rounds: options.rounds ?? 7 });
    return kinds.map((kind, i) => rowOf(kind, shape, products[i]?.bytes ?? NaN, samples));
  } finally {
    for (const product of products) product.dispose();
  }
}

function rowOf(kind: Kind, shape: Shape, bytes: number, samples: Readonly<Record<string, readonly number[]>>): Row {
  const { median } = spread(samples[kind] ?? []);
  const rate = bytes / median / 1e6;
  const copy = samples['copy'] === undefined ? null : spread(samples['copy']).median;
  return {
    product: kind, 'T×wide r': nameOf(shape), 'µs': withQuartiles(spread((samples[kind] ?? []).map((ms) => 1000 * ms)), 1),
    'GB/s': digits(rate, 0), 'copy GB/s': digits(copy, 0), 'of copy rate': copy === null ? null : digits(rate / copy, 2),
  };
}

const bytesOf: Readonly<Record<string, number>> = { f32: 4, f16: 2, bf16: 2 };

/** Operands that go together. */
function owner(): { own<D extends { dispose(): void }>(thing: D): D; dispose(): void } {
  const made: { dispose(): void }[] = [];
  return { own: (thing) => (made.push(thing), thing), dispose: () => made.reverse().forEach((thing) => thing.dispose()) };
}

/** A lora_linear of a weight without rows: of its two products only u = x Aᵀ is left. */
function makeU(device: Device, { T, wide, r }: Shape, activations: DType, dropout: number): Product {
  const { own, dispose } = owner();
  const [x, a] = [makeNoise(1), makeNoise(2)];
  const weight = own(device.weight([own(device.empty([0, wide], 'bf16'))]));
  const operands = [own(device.activation([T, 0], activations)), own(device.empty([T, r])), own(x.activation(device, [T, wide], activations)), weight, null, null, own(a.tensor(device, [r, wide], 'f32')), own(device.empty([0]))] as const;
  return {
    work: () => launch('lora_linear', ...operands, ...numbers(r, dropout)),
    bytes: bytesOf[activations]! * T * wide + 4 * r * (wide + T),
    dispose,
    async check() {
      if (dropout > 0) return; // tests know the mask
      launch('lora_linear', ...operands, ...numbers(r, dropout));
      const u = await operands[1].data();
      for (const [t, j] of [[0, 0], [T - 1, r - 1]] as const) expectNear('u', u[t * r + j], sum(wide, (k) => x.at(t * wide + k) * a.at(j * wide + k)), Math.sqrt(wide));
    },
  };
}

/** The backward pass without dx: v = dy B and dB = dyᵀu with little beside them where K is narrow, dA = vᵀx where N is. */
function makeGradient(device: Device, { T, wide, r }: Shape, activations: DType, kind: Kind): Product {
  const { own, dispose } = owner();
  const [K, N] = kind.startsWith('dA') ? [wide, narrow] : [narrow, wide];
  const dropout = dropoutOf(kind);
  const noise = { dy: makeNoise(1), x: makeNoise(2), u: makeNoise(3), b: makeNoise(5) };
  const f32 = (shape: readonly number[]): Tensor => own(device.empty(shape));
  const weight: Weight = own(device.weight([own(makeNoise(6).tensor(device, [N, K], 'bf16'))]));
  const [da, db] = [f32([r, K]), f32([N * r])];
  const inputs = [own(noise.dy.activation(device, [T, N], activations)), own(noise.x.activation(device, [T, K], activations)), own(noise.u.tensor(device, [T, r], 'f32')), weight] as const;
  const factors = [own(makeNoise(4).tensor(device, [r, K], 'f32')), own(noise.b.tensor(device, [N * r], 'f32'))] as const;
  const dx = kind.startsWith('dA and dx') ? own(device.activation([T, K], activations)) : null;
  const work = (): void => launch('lora_linear_grad', dx, da, db, ...inputs, ...factors, ...numbers(r, dropout));
  for (const gradient of [da, db]) fillInplace(gradient, 0);
  return {
    work,
    bytes: bytesOf[activations]! * T * (N + K + (dx === null ? 0 : 3 * K)) + 4 * r * (2 * T + 2 * N + 2 * K), // dx is written, read and written
    dispose,
    async check() {
      if (dropout > 0) return;
      for (const gradient of [da, db]) fillInplace(gradient, 0);
      work();
      const [foundA, foundB] = [await da.data(), await db.data()];
      const v = (t: number): number => sum(N, (n) => noise.dy.at(t * N + n) * noise.b.at(n * r));
      expectNear('dA', foundA[K - 1], sum(T, (t) => v(t) * noise.x.at(t * K + K - 1)), noiseSpread * Math.sqrt(T * N));
      expectNear('dB', foundB[(N - 1) * r], sum(T, (t) => noise.dy.at(t * N + N - 1) * noise.u.at(t * r)), Math.sqrt(T));
    },
  };
}

/** Ranks, scales, layers, dropout, seeds and step of one part. */
const numbers = (r: number, dropout: number): readonly number[] => [r, 0, 0, 1, 0, 0, 0, 0, 0, dropout, 1, 0, 0];

function sum(count: number, term: (i: number) => number): number {
  let total = 0;
  for (let i = 0; i < count; i++) total += term(i);
  return total;
}

/** Within two hundredths of what a sum of so many products usually is (`root`: of their number, times what else is in them). */
function expectNear(what: string, found: number | undefined, wanted: number, root: number): void {
  const allowed = (noiseSpread ** 2 * root) / 50;
  if (found === undefined || !(Math.abs(found - wanted) <= allowed)) throw new Error(`skinny: ${what} must be ${wanted} within ${allowed.toPrecision(2)} (found ${String(found)})`);
}
