import type { Device } from '../device.ts';
import type { DType, Shape, Tensor } from '../tensor.ts';

/** After so many numbers noise repeats itself: a prime, so that rows of no usual length start alike. */
const period = 1_048_573;

/**
 * Numbers i/1024 with i in [-128, 128), the same for the same seed: every activation and weight type holds them exactly, so that what
 * a device should compute of them is known without asking it for its operands.
 */
export interface Noise {
  at(i: number): number;
  /** Of as many elements as there are weights, from `begin` on, in f64. */
  dot(begin: number, weights: Float32Array): number;
  /** Element i counts from `begin`. */
  fill(count: number, begin?: number): Float32Array;
  tensor(device: Device, shape: Shape, dtype: DType): Tensor;
  /** The same as an activation, laid out as the device likes them. */
  activation(device: Device, shape: Shape, dtype: DType): Tensor;
}

/** Spread of one such number. */
export const noiseSpread = 1 / 8 / Math.sqrt(3);

export function makeNoise(seed: number): Noise {
  const steps = new Uint8Array(period);
  let state = seed | 0;
  for (let i = 0; i < period; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) | 0;
    steps[i] = state >>> 24;
  }
  const at = (i: number): number => values[steps[i % period] as number] as number;
  return {
    at,
    dot: (begin, weights) => dotFrom(steps, begin % period, weights),
    fill: (count, begin = 0) => (begin === 0 ? tiled(new Float32Array(count), steps, values) : Float32Array.from({ length: count }, (_, i) => at(begin + i))),
    tensor: (device, shape, dtype) => filled(device.empty(shape, dtype), steps),
    activation: (device, shape, dtype) => filled(device.activation(shape, dtype), steps),
  };
}

/** Rows at a time, each time from where in the noise they begin: a large tensor is never held here as a whole. */
function filled(tensor: Tensor, steps: Uint8Array): Tensor {
  const { rows, cols, size, dtype } = tensor;
  const table = dtype === 'f32' ? values : Uint16Array.from({ length: 256 }, (_, step) => bitsOf(step, dtype));
  const most = Math.max(1, Math.floor(period / cols));
  const length = Math.min(size, period + most * cols);
  const all = tiled(dtype === 'f32' ? new Float32Array(length) : new Uint16Array(length), steps, table);
  for (let row = 0; row < rows; row += most) {
    const [count, begin] = [Math.min(most, rows - row), (row * cols) % period];
    using view = tensor.view([count, cols], row * cols);
    view.upload(all.subarray(begin, begin + count * cols));
  }
  return tensor;
}

/** Without a division for each element, which takes more than all else. */
function dotFrom(steps: Uint8Array, begin: number, weights: Float32Array): number {
  let total = 0;
  for (let i = 0, at = begin; i < weights.length; i++) {
    total += (values[steps[at] as number] as number) * (weights[i] as number);
    if (++at === period) at = 0;
  }
  return total;
}

const valueOf = (step: number): number => (step - 128) / 1024;
const values = Float32Array.from({ length: 256 }, (_, step) => valueOf(step));

/** Of each step its number in the table; behind a period the same again. */
function tiled<A extends Float32Array | Uint16Array>(all: A, steps: Uint8Array, table: ArrayLike<number>): A {
  const first = Math.min(period, all.length);
  for (let i = 0; i < first; i++) all[i] = table[steps[i] as number] as number;
  for (let begin = period; begin < all.length; begin += period) all.copyWithin(begin, 0, Math.min(period, all.length - begin));
  return all;
}

/** In 16 bits; exact. */
function bitsOf(step: number, dtype: DType): number {
  if (dtype === 'bf16') return (new Uint32Array(Float32Array.of(valueOf(step)).buffer)[0] as number) >>> 16;
  const magnitude = Math.abs(step - 128);
  if (magnitude === 0) return 0;
  const exponent = Math.floor(Math.log2(magnitude)); // of f16: value 2^(exponent - 10), biased by 15
  return (step < 128 ? 0x8000 : 0) | ((exponent + 5) << 10) | ((magnitude / 2 ** exponent - 1) * 1024);
}

/** The first numbers of {@link makeNoise}. */
export const noise = (count: number, seed: number): Float32Array => makeNoise(seed).fill(count);
