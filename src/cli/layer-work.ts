import type { Device } from '../device.ts';
import { fillInplace } from '../ops/elementwise.ts';
import { linear } from '../ops/linear.ts';
import { loraLinear } from '../ops/lora_linear.ts';
import { scope } from '../scope.ts';
import { Tape } from '../tape.ts';
import type { DType, Tensor } from '../tensor.ts';
import { adapterScale, checkLayer } from './layer-check.ts';
import { makeNoise } from './noise.ts';
import type { Work } from './turns.ts';

/** A layer W0 [N, K] with adapters of rank r over T tokens; where W0 has parts (q|k|v), one for each. */
export interface LayerShape {
  readonly T: number;
  readonly K: number;
  readonly N: number;
  readonly r: number;
  /** Rows of each part; [N]. */
  readonly parts?: readonly number[];
}

export const layerName = ({ T, K, N, r, parts = [N] }: LayerShape): string => `${T}×${K}→${parts.join('|')} r${r}`;

/** Multiplications and additions of the frozen layer: x W0ᵀ and dy W0. */
export const frozenFlops = ({ T, K, N }: LayerShape): number => 4 * T * K * N;

/** What the adapter's own arithmetic adds to the frozen layer's, as a factor: u, u Bᵀ, v, v A, dA, dB. */
export const flopFloor = ({ K, N, r, parts = [N] }: LayerShape): number => 1 + (3 * r * (K * parts.length + N)) / (2 * K * N);

/** A layer whose forward and backward pass can be timed: frozen (y, dx) and with an adapter (y, dx, dA, dB). */
export interface LayerWork {
  readonly frozen: Work;
  /** With dropout p. */
  lora(p: number): Work;
  /** Computes some elements of y, dx, dA and dB in f64 beside it. @throws LowrankError ERR_INTERNAL where they differ */
  check(): Promise<void>;
  dispose(): void;
}

/** Of W0, and of x, y and their gradients. */
export interface LayerTypes {
  readonly stored: DType;
  readonly activations?: DType; // the device's own
}

export function makeLayerWork(device: Device, shape: LayerShape, { stored, activations = device.info.activations }: LayerTypes): LayerWork {
  const { T, K, N, r, parts = [N] } = shape;
  const made: { dispose(): void }[] = [];
  const own = <D extends { dispose(): void }>(thing: D): D => (made.push(thing), thing);
  const operands = { w: makeNoise(1), x: makeNoise(2), dy: makeNoise(3), a: makeNoise(4), b: makeNoise(5) };
  const matrix = own(operands.w.tensor(device, [N, K], stored));
  const weight = own(device.weight(parts.map((rows, i) => own(matrix.view([rows, K], sumOf(parts.slice(0, i)) * K)))));
  const [x, dy] = [own(operands.x.activation(device, [T, K], activations)), own(operands.dy.activation(device, [T, N], activations))];
  const [a, b] = [own(operands.a.tensor(device, [r * parts.length, K], 'f32')), own(operands.b.tensor(device, [N * r], 'f32'))];
  const [da, db] = [own(a.like()), own(b.like())];
  for (const gradient of [da, db]) fillInplace(gradient, 0);
  const layer = { weight, bias: null };
  const adapter = { a, b, da, db, ranks: parts.map(() => r), scales: parts.map(() => adapterScale) };
  const lora = (p: number) => ({ ...adapter, dropout: { p, seed: 1, layers: parts.map((_, i) => i), step: 0 } });
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
      try {
        await checkLayer(shape, operands, { y, dx, da, db });
      } finally {
        for (const tensor of [y, dx]) tensor.dispose();
      }
    },
    dispose: () => made.forEach((thing) => thing.dispose()),
  };
}

const sumOf = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);
