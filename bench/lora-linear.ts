import type { Device } from '../src/device.ts';
import { launch } from '../src/kernel.ts';
import { cast, fillInplace } from '../src/ops/elementwise.ts';
import type { DType, Tensor } from '../src/tensor.ts';
import { timeInterleaved } from './timing.ts';

interface LayerShape {
  readonly T: number;
  readonly K: number;
  readonly N: number;
  readonly r: number;
}

const allShapes: readonly LayerShape[] = [
  { T: 256, K: 768, N: 768, r: 8 },
  { T: 512, K: 2048, N: 2048, r: 16 },
  { T: 512, K: 4096, N: 4096, r: 16 },
  { T: 512, K: 2048, N: 8192, r: 16 },
  { T: 128, K: 4096, N: 4096, r: 64 },
  { T: 2048, K: 1024, N: 1024, r: 8 },
];

function noise(device: Device, shape: readonly number[]): Tensor {
  const count = shape.reduce((n, dim) => n * dim, 1);
  return device.tensor(Float32Array.from({ length: count }, (_, i) => Math.sin(i * 0.7) / 8), shape);
}

async function benchShape(device: Device, { T, K, N, r }: LayerShape, dtype: DType): Promise<Record<string, unknown>> {
  using wide = noise(device, [N, K]);
  using stored = cast(wide, dtype);
  using w = device.weight([stored]);
  using x = noise(device, [T, K]);
  using dy = noise(device, [T, N]);
  using a = noise(device, [r, K]);
  using b = noise(device, [N * r]);
  using y = device.empty([T, N]);
  using dx = device.empty([T, K]);
  using u = device.empty([T, r]);
  using da = device.empty([r, K]);
  using db = device.empty([N * r]);
  for (const tensor of [da, db]) fillInplace(tensor, 0);
  const parts = (p: number): number[] => [r, 0, 0, 2, 0, 0, 0, 0, 0, p, 1, 0, 0];
  const layer = (p: number) => (): void => {
    launch('lora_linear', y, u, x, w, null, null, a, b, ...parts(p));
    launch('lora_linear_grad', dx, da, db, dy, x, u, w, a, b, ...parts(p));
  };
  const times = await timeInterleaved(device, {
    frozen: () => {
      launch('linear', y, x, w, null, null);
      launch('linear_grad', dx, dy, w);
    },
    'p=0': layer(0),
    'p=0.1': layer(0.1),
  });
  const ms = (name: string): number => times[name]?.median ?? NaN;
  return {
    shape: `${T}x${K}->${N} r${r}`, dtype,
    'frozen ms': +ms('frozen').toFixed(2),
    'frozen GFLOP/s': Math.round((4 * T * K * N) / ms('frozen') / 1e6),
    'p=0 / frozen': +(ms('p=0') / ms('frozen')).toFixed(3),
    'p=0.1 / frozen': +(ms('p=0.1') / ms('frozen')).toFixed(3),
    'FLOP floor': +(1 + (3 * r * (K + N)) / (2 * K * N)).toFixed(3),
  };
}

/** A LoRA linear forward and backward (dA, dB, dx) over the frozen layer alone, interleaved. `all`: the six shapes, else two. */
export async function benchLoraLinear(device: Device, extent: 'all' | 'short'): Promise<unknown> {
  const rows: Record<string, unknown>[] = [];
  for (const shape of extent === 'all' ? allShapes : allShapes.slice(0, 2)) {
    for (const dtype of ['bf16', 'f16', 'f32'] as const) rows.push(await benchShape(device, shape, dtype));
  }
  console.table(rows);
  return rows;
}
