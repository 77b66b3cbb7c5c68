import type { Device } from '../device.ts';
import { launch } from '../kernel.ts';
import { cast } from '../ops/elementwise.ts';
import { loraLinear } from '../ops/lora_linear.ts';
import { scope } from '../scope.ts';
import type { LayerShape } from './layer-work.ts';
import { noise } from './noise.ts';
import type { Work } from './turns.ts';

/** A layer that computes next to nothing: what its call costs is the way from TypeScript to the kernel. */
export const nearlyNothing: LayerShape = { T: 1, K: 16, N: 16, r: 1 };

/** Layers whose calls are timed: a token, a batch of them, and next to no arithmetic. */
export const callShapes: readonly LayerShape[] = [{ T: 1, K: 768, N: 768, r: 8 }, { T: 512, K: 768, N: 768, r: 8 }, nearlyNothing];

/** A lora_linear call over a bf16 W0, forward, in two ways. */
export interface CallWork {
  /** As a model makes it: outputs made for it and disposed of. */
  readonly op: Work;
  /** On outputs that are there already, as a caller of the C ABI has them. */
  readonly kernel: Work;
  dispose(): void;
}

/** Operands on `device`, and the compiler acquainted with both ways. */
export async function makeCallWork(device: Device, { T, K, N, r }: LayerShape): Promise<CallWork> {
  const wide = device.tensor(noise(N * K, 2), [N, K]);
  const stored = scope(() => cast(wide, 'bf16'));
  wide.dispose();
  const weight = device.weight([stored]);
  const [x, a, b] = [device.tensor(noise(T * K, 1), [T, K]), device.tensor(noise(r * K, 3), [r, K]), device.tensor(noise(N * r, 4))];
  const [y, u] = [device.empty([T, N]), device.empty([T, r])];
  const operands = { a, b, da: null, db: null, ranks: [r], scales: [2], dropout: { p: 0, seed: 0, layers: [0], step: 0 } };
  const [ranks, scales, noDropout] = [[r, 0, 0], [2, 0, 0], [0, 0, 0, 0, 0, 0, 0]];
  const work = {
    op: () => scope(() => loraLinear(x, { weight, bias: null }, operands).dispose()),
    kernel: () => launch('lora_linear', y, u, x, weight, null, null, a, b, ...ranks, ...scales, ...noDropout),
    dispose: () => [weight, stored, x, a, b, y, u].forEach((thing) => thing.dispose()),
  };
  await acquaint(device, [work.op, work.kernel]);
  return work;
}

/** V8 compiles well what has run often; a model's calls have. Until then a call costs ten times as much. */
async function acquaint(device: Device, works: readonly Work[]): Promise<void> {
  for (const work of works) {
    const end = performance.now() + 200;
    while (performance.now() < end) {
      for (let i = 0; i < 100; i++) work();
      await device.fence();
    }
  }
}
