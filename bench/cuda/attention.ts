import { rowOf as matrixRow } from '../../src/cli/layer-check.ts';
import { makeNoise, type Noise } from '../../src/cli/noise.ts';
import { deviceParty, type Party, spread, takeTurns, type Work } from '../../src/cli/turns.ts';
import type { Device } from '../../src/device.ts';
import { launch } from '../../src/kernel.ts';
import type { DType, Tensor } from '../../src/tensor.ts';
import type { Bench, BenchContext } from '../bench.ts';
import { startPeerWorker, type PeerWorker } from '../peers.ts';
import { digits, type Row, withQuartiles } from '../table.ts';
import { timer } from '../time-left.ts';

/** Sequences of one length, packed; every query sees what is before it. */
interface Shape {
  readonly sequences: number;
  readonly length: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly size: number;
}

const works = ['forward', 'backward'] as const;
/** Products of a whole score matrix with a head's rows: what a pass can't do without. Ours makes the scores twice going back: 7. */
const products = { forward: 2, backward: 5 } as const;

const [llama8, llama1] = [{ heads: 32, kvHeads: 8, size: 128 }, { heads: 32, kvHeads: 8, size: 64 }];
const gpuShapes: readonly Shape[] = [{ sequences: 4, length: 2048, ...llama8 }, { sequences: 4, length: 2048, ...llama1 }, { sequences: 1, length: 8192, ...llama8 }];
/** Rows from the end that are checked. */
const checked = 8;
/** With numbers as small as the operands', it gives scores a spread near 1, as a model's have. */
const scale = 16;

/** The kernels of causal attention alone, and PyTorch's beside them. */
export const attention: Bench = {
  about: 'causal attention alone, forward and backward: µs and TFLOP/s, in bf16 beside PyTorch; --shape SEQUENCESxLENGTHxHEADSxKVHEADSxSIZE',
  usual: false,
  anyDevice: true,
  async run(context) {
    const worker = context.peers?.gpu && context.activations === 'bf16' ? startPeerWorker(context.peers) : null; // theirs are bf16
    try {
      const time = timer('attention', context.options.seconds);
      const rows: Row[] = [];
      for (const shape of chosenShapes(context)) if (time.allows(nameOf(shape))) rows.push(...(await measure(context, shape, worker)));
      return { tables: { [`causal attention, activations ${context.activations}`]: rows } };
    } finally {
      await worker?.stop();
    }
  },
};

const nameOf = ({ sequences, length, heads, kvHeads, size }: Shape): string => `${sequences}×${length} ${heads}/${kvHeads} D=${size}`;

function chosenShapes({ device, options: { shape } }: BenchContext): readonly Shape[] {
  if (shape === null && device.kind === 'cusim') return [{ sequences: 3, length: 40, heads: 4, kvHeads: 2, size: 32 }];
  if (shape === null) return device.kind === 'cpu' ? [{ sequences: 1, length: 512, ...llama1 }] : gpuShapes;
  const [sequences, length, heads, kvHeads, size, more] = shape.split('x').map(Number);
  if (!sequences || !length || !heads || !kvHeads || !size || more !== undefined || length < checked || heads % kvHeads !== 0) {
    throw new Error(`attention: --shape must be SEQUENCESxLENGTHxHEADSxKVHEADSxSIZE, LENGTH ${checked} and more, HEADS a multiple of KVHEADS, such as 4x2048x32x8x128 (found ${shape})`);
  }
  return [{ sequences, length, heads, kvHeads, size }];
}

async function measure({ device, activations, options }: BenchContext, shape: Shape, worker: PeerWorker | null): Promise<Row[]> {
  const kernels = makeKernels(device, shape, activations);
  try {
    await kernels.check();
    const parties: Record<string, Party> = Object.fromEntries(works.map((work) => [work, deviceParty(device, kernels[work])]));
    if (worker !== null) {
      const { sequences, length, heads, kvHeads, size } = shape;
      const theirs = await worker.setUp('attention', { sequences, length, heads, kv_heads: kvHeads, size, scale });
      for (const work of works) parties[`PyTorch ${work}`] = theirs.party(work);
    }
    const samples = await takeTurns(parties, { rounds: options.rounds ?? 7 });
    return works.map((work) => rowOf(work, shape, samples));
  } finally {
    kernels.dispose();
  }
}

function rowOf(work: (typeof works)[number], shape: Shape, samples: Readonly<Record<string, readonly number[]>>): Row {
  const { sequences, length, heads, size } = shape;
  const flops = (products[work] * 2 * sequences * length * (length + 1) * heads * size) / 2;
  const medianOf = (party: string): number | null => (samples[party] === undefined ? null : spread(samples[party]).median);
  const rateOf = (party: string): number | null => rate(flops, medianOf(party));
  return {
    pass: work, 'S×L H/G D': nameOf(shape), 'µs': withQuartiles(spread((samples[work] ?? []).map((ms) => 1000 * ms)), 1), 'TFLOP/s': digits(rateOf(work), 1),
    'PyTorch µs': digits(microseconds(medianOf(`PyTorch ${work}`)), 1), 'PyTorch TFLOP/s': digits(rateOf(`PyTorch ${work}`), 1),
  };
}

const microseconds = (ms: number | null): number | null => (ms === null ? null : 1000 * ms);
const rate = (flops: number, ms: number | null): number | null => (ms === null ? null : flops / ms / 1e9);

interface Kernels {
  readonly forward: Work;
  readonly backward: Work;
  /** Some rows of y and of each gradient against the same in f64. */
  check(): Promise<void>;
  dispose(): void;
}

function makeKernels(device: Device, shape: Shape, activations: DType): Kernels {
  const { sequences, length, heads, kvHeads, size } = shape;
  const T = sequences * length, wide = (heads + 2 * kvHeads) * size;
  const noise = { qkv: makeNoise(1), dy: makeNoise(2) };
  const [qkv, dy] = [noise.qkv.activation(device, [T, wide], activations), noise.dy.activation(device, [T, heads * size], activations)];
  const [y, dqkv] = [device.activation([T, heads * size], activations), device.activation([T, wide], activations)];
  const lse = device.empty([T, heads]);
  const offsets = device.empty([sequences + 1], 'i32');
  offsets.upload(Int32Array.from({ length: sequences + 1 }, (_, i) => i * length));
  const forward = (): void => launch('attention', y, lse, qkv, offsets, heads, kvHeads, 0, scale);
  const backward = (): void => launch('attention_grad', dqkv, dy, qkv, y, lse, offsets, heads, kvHeads, 0, scale);
  return {
    forward,
    backward,
    dispose: () => [qkv, dy, y, dqkv, lse, offsets].forEach((tensor) => tensor.dispose()),
    async check() {
      forward();
      backward();
      const wanted = lastRows(shape, noise, checked);
      expectNear('y', await numbersOf(y, T - 1, (heads - 1) * size, size), wanted.y);
      expectNear('dq', await numbersOf(dqkv, T - 1, (heads - 1) * size, size), wanted.dq);
      expectNear('dk', await numbersOf(dqkv, T - checked, (heads + kvHeads - 1) * size, size), wanted.dk);
      expectNear('dv', await numbersOf(dqkv, T - checked, (heads + 2 * kvHeads - 1) * size, size), wanted.dv);
    },
  };
}

const numbersOf = async (tensor: Tensor, row: number, begin: number, count: number): Promise<Float32Array> => (await matrixRow(tensor, row)).slice(begin, begin + count);

interface LastRows {
  readonly y: Float64Array;
  readonly dq: Float64Array;
  readonly dk: Float64Array;
  readonly dv: Float64Array;
}

/** y and dq of the last token's last head, dk and dv of the last kv head `back` tokens before the end. */
function lastRows({ sequences, length, heads, kvHeads, size }: Shape, noise: { readonly qkv: Noise; readonly dy: Noise }, back: number): LastRows {
  const T = sequences * length, first = T - length, wide = (heads + 2 * kvHeads) * size, group = heads / kvHeads;
  const rowsOf = (from: Noise, columns: number, head: number, begin: number): Float64Array[] =>
    Array.from({ length: T - begin }, (_, t) => Float64Array.from({ length: size }, (_, i) => from.at((begin + t) * columns + head * size + i)));
  const [keys, values] = [rowsOf(noise.qkv, wide, heads + kvHeads - 1, first), rowsOf(noise.qkv, wide, heads + 2 * kvHeads - 1, first)];
  const result = { y: new Float64Array(size), dq: new Float64Array(size), dk: new Float64Array(size), dv: new Float64Array(size) };
  for (let head = heads - group; head < heads; head++) {
    const [queries, slopes] = [rowsOf(noise.qkv, wide, head, T - back), rowsOf(noise.dy, heads * size, head, T - back)];
    for (let row = 0; row < back; row++) {
      const [q, dy] = [queries[row] as Float64Array, slopes[row] as Float64Array];
      const seen = length - back + row + 1;
      const weights = keys.slice(0, seen).map((k) => Math.exp(scale * dot(q, k)));
      const total = weights.reduce((sum, weight) => sum + weight, 0);
      const p = weights.map((weight) => weight / total);
      const y = weighted(p, values);
      const ds = p.map((pj, j) => scale * pj * (dot(dy, values[j] as Float64Array) - dot(dy, y)));
      addTo(result.dk, ds[length - back] as number, q);
      addTo(result.dv, p[length - back] as number, dy);
      if (head === heads - 1 && row === back - 1) Object.assign(result, { y, dq: weighted(ds, keys) });
    }
  }
  return result;
}

function dot(a: Float64Array, b: Float64Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += (a[i] as number) * (b[i] as number);
  return sum;
}

function addTo(sum: Float64Array, factor: number, row: Float64Array): void {
  for (let i = 0; i < row.length; i++) sum[i] = (sum[i] as number) + factor * (row[i] as number);
}

function weighted(factors: readonly number[], rows: readonly Float64Array[]): Float64Array {
  const sum = new Float64Array((rows[0] as Float64Array).length);
  factors.forEach((factor, j) => addTo(sum, factor, rows[j] as Float64Array));
  return sum;
}

/** Within a twentieth of the row's spread: 16 bits of each factor, and of what comes out. */
function expectNear(what: string, found: ArrayLike<number>, wanted: Float64Array): void {
  const allowed = Math.sqrt(dot(wanted, wanted) / wanted.length) / 20;
  wanted.forEach((value, i) => {
    if (Math.abs((found[i] as number) - value) <= allowed) return;
    throw new Error(`attention: ${what}[${i}] must be ${value} within ${allowed.toPrecision(2)} (found ${String(found[i])})`);
  });
}
