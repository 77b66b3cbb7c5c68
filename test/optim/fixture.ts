import type { Device } from '../../src/device.ts';
import { ParameterArena } from '../../src/lora/arena.ts';
import type { Optimizer } from '../../src/optim/optimizer.ts';
import { normals } from '../reference/finite-difference.ts';

export const counts = { countA: 37, countB: 26 } as const;
export const total = counts.countA + counts.countB;

/** An arena with random parameters, and what these are in f64. */
export function filledArena(device: Device): { arena: ParameterArena; p: Float64Array } {
  const arena = new ParameterArena(device, { ...counts, trainable: true });
  const p = Float64Array.from(normals(total, 7), Math.fround);
  arena.parameters.upload(Float32Array.from(p));
  return { arena, p };
}

/** The gradient of step n, uneven in size so that eps, clipping and decay all show. */
export function gradientOf(step: number): Float64Array {
  return Float64Array.from(normals(total, 100 + step), (x, i) => Math.fround(x * (i % 5 === 0 ? 1e-3 : 2)));
}

export function norm(g: Float64Array): number {
  return Math.sqrt(g.reduce((sum, x) => sum + x * x, 0));
}

/** Queues a step on this gradient; the losses are [1, loss]. */
export function stepOn(optimizer: Optimizer, g: Float64Array, { loss = 1, clip = 0, lr }: { loss?: number; clip?: number; lr?: number } = {}): void {
  optimizer.arena.gradients.upload(Float32Array.from(g));
  using losses = optimizer.arena.device.tensor(Float32Array.of(1, loss));
  optimizer.step({ losses, clip }, lr);
}

/** Parameters and state, as bytes. */
export async function bytesOf(optimizer: Optimizer): Promise<Buffer> {
  const tensors = [optimizer.arena.parameters, ...Object.values(optimizer.stateTensors())];
  return Buffer.concat(await Promise.all(tensors.map(async (tensor) => Buffer.from(await tensor.bytes()))));
}
