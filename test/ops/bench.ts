import { expect } from 'vitest';
import type { ActivationDtype, Device, Weight, WeightOrder } from '../../src/device.ts';
import type { DType, Shape, Tensor } from '../../src/tensor.ts';
import { normals } from '../reference/finite-difference.ts';
import { bf16Bits, bf16Value, f16Bits, f16Value } from '../reference/half.ts';
import type { Numbers } from '../reference/numbers.ts';

/** Elements of guard on each side of an operand, and what they hold: a NaN with a payload nobody computes. */
const guardElements = 32;
const guardRows = 2; // of an activation whose rows have spare columns; those are guards too: they hold NaN
const guardWord = 0x7fc0dead;

/** An operand on the device, its guards, and what it must still hold after the op when it was only read. */
interface Operand {
  readonly whole: Tensor;
  readonly before: Uint8Array;
  readonly begin: number; // bytes
  readonly end: number;
  readonly role: 'read' | 'written';
}

/** How far an operand's first element is from an aligned address, in elements: none of these is a multiple of a vector. */
export type Misalign = 0 | 1 | 3;

/** How a bench puts operands into memory. */
export interface Placement {
  readonly misalign: Misalign;
  readonly seed: number;
  /** `any rows`: where operands are misaligned, activations of 16 bits have no spare columns. */
  readonly layout: 'any rows' | 'bordered';
  /** What the runs of a case have in common: its operands, and what the oracle makes of them. */
  readonly shared: unknown[];
}

/**
 * Puts operands on a device the way the parity harness wants them: between guards, misaligned on demand, outputs full of NaN. Knows
 * afterwards whether a kernel wrote where it must not.
 */
export class Bench {
  readonly device: Device;
  readonly #misalign: Misalign;
  readonly #layout: Placement['layout'];
  readonly #operands: Operand[] = [];
  readonly #weights: Weight[] = [];
  readonly #views: Tensor[] = [];
  readonly #shared: unknown[];
  #seed: number;
  #asked = 0;

  constructor(device: Device, { misalign, seed, layout, shared }: Placement) {
    this.device = device;
    this.#shared = shared;
    this.#misalign = misalign;
    this.#layout = layout;
    this.#seed = seed;
  }
  /** What activations are stored in here. */
  get activations(): ActivationDtype {
    return this.device.info.activations;
  }
  /** What all runs of a case share, made by the first: it must depend on the case, the dtype of activations and the precision of products alone. Asked for in the same order each time. */
  once<T>(make: () => T): T {
    const at = this.#asked++;
    if (at === this.#shared.length) this.#shared.push(make());
    return this.#shared[at] as T;
  }
  /** `count` normal numbers times `scale`, as the dtype holds them. */
  random(count: number, { scale = 1, dtype = 'f32' as DType } = {}): Float64Array {
    const seed = this.#seed++;
    return this.once(() => normals(count, seed).map((x) => roundTo(x * scale, dtype))).slice();
  }
  /** As {@link random}, as an activation holds them. */
  randomActivation(count: number, { scale = 1 } = {}): Float64Array {
    return this.random(count, { scale, dtype: this.activations });
  }
  /** The numbers as an activation holds them. */
  rounded(values: Float64Array): Float64Array {
    return values.map((value) => roundTo(value, this.activations));
  }
  /** An activation that is only read. */
  activation(values: Numbers, shape: Shape): Tensor {
    return this.#placeActivation(values, shape, 'read');
  }
  /** An activation that is read and written. */
  activationInout(values: Numbers, shape: Shape): Tensor {
    return this.#placeActivation(values, shape, 'written');
  }
  /** An activation that is written: full of NaN before. */
  activationOutput(shape: Shape): Tensor {
    return this.activationInout(new Float64Array(sizeOf(shape)).fill(NaN), shape);
  }
  /** An operand that is only read. */
  input(values: Numbers, shape: Shape, dtype: DType = 'f32'): Tensor {
    return this.#place(values, shape, dtype, 'read');
  }
  ints(values: Numbers, shape: Shape = [values.length]): Tensor {
    return this.input(values, shape, 'i32');
  }
  /** An operand that is read and written. */
  inout(values: Numbers, shape: Shape, dtype: DType = 'f32'): Tensor {
    return this.#place(values, shape, dtype, 'written');
  }
  /** An operand that is written: full of NaN before. */
  output(shape: Shape, dtype: DType = 'f32'): Tensor {
    return this.inout(new Float64Array(sizeOf(shape)).fill(NaN), shape, dtype);
  }
  /** A frozen weight of parts [N_i, K], stored in `order`. */
  weight(parts: readonly { readonly values: Numbers; readonly out: number }[], k: number, dtype: DType, order: WeightOrder = 'out_in'): Weight {
    const stored = parts.map(({ values, out }) =>
      order === 'out_in' ? this.input(values, [out, k], dtype) : this.input(transposed(values, out, k), [k, out], dtype));
    const weight = this.device.weight(stored, order);
    this.#weights.push(weight);
    return weight;
  }
  #place(values: Numbers, shape: Shape, dtype: DType, role: Operand['role']): Tensor {
    const bytes = this.once(() => encode(values, dtype));
    const offset = guardElements + this.#misalign;
    const whole = this.device.empty([offset + sizeOf(shape) + guardElements], dtype);
    return this.#fill(whole, { bytes, shape, offset, role });
  }
  #placeActivation(values: Numbers, shape: Shape, role: Operand['role']): Tensor {
    const bordered = this.#misalign === 0 || this.#layout === 'bordered';
    if (this.activations === 'f32' || !bordered || shape.length < 2 || values.length === 0) return this.#place(values, shape, this.activations, role);
    const cols = shape[shape.length - 1] as number;
    const bytes = this.once(() => encode(values, this.activations));
    const whole = this.device.activation([values.length / cols + 2 * guardRows, cols]);
    return this.#fill(whole, { bytes, shape, offset: guardRows * cols, role });
  }
  /** Puts `bytes` at element `offset` of `whole`, guards around them, and returns a view of them. */
  #fill(whole: Tensor, { bytes, shape, offset, role }: { bytes: Uint8Array; shape: Shape; offset: number; role: Operand['role'] }): Tensor {
    const begin = (offset * whole.byteLength) / whole.size;
    const before = guards(whole.byteLength);
    before.set(bytes, begin);
    whole.upload(before);
    this.#operands.push({ whole, before, begin, end: begin + bytes.length, role });
    const view = whole.view(shape, offset);
    this.#views.push(view);
    return view;
  }
  /** Fails if a guard or an operand that is only read has changed. */
  async checkBounds(): Promise<void> {
    for (const { whole, before, begin, end, role } of this.#operands) {
      const after = new Uint8Array(await whole.bytes());
      if (role === 'written') after.set(before.subarray(begin, end), begin);
      if (Buffer.compare(after, before) === 0) continue;
      const changed = after.findIndex((byte, i) => byte !== before[i]);
      expect.fail(`an operand was written at byte ${changed - begin} of ${end - begin} (${role})`);
    }
  }
  dispose(): void {
    for (const weight of this.#weights) weight.dispose();
    for (const view of this.#views) view.dispose();
    for (const { whole } of this.#operands) whole.dispose();
  }
}

/** The number as the dtype holds it. */
export function roundTo(x: number, dtype: DType): number {
  if (dtype === 'f16') return f16Value(f16Bits(x));
  if (dtype === 'bf16') return bf16Value(bf16Bits(x));
  return dtype === 'f32' ? Math.fround(x) : Math.trunc(x);
}

const sizeOf = (shape: Shape): number => shape.reduce((n, dim) => n * dim, 1);

function encode(values: Numbers, dtype: DType): Uint8Array {
  if (dtype === 'f32') return new Uint8Array(new Float32Array(values).buffer);
  if (dtype === 'i32') return new Uint8Array(new Int32Array(values).buffer);
  const [bits, halves] = [dtype === 'f16' ? f16Bits : bf16Bits, new Uint16Array(values.length)];
  for (let i = 0; i < values.length; i++) halves[i] = bits(values[i] as number);
  return new Uint8Array(halves.buffer);
}

function guards(bytes: number): Uint8Array {
  const words = new Uint32Array(Math.ceil(bytes / 4)).fill(guardWord);
  return new Uint8Array(words.buffer, 0, bytes);
}

export function transposed(values: Numbers, rows: number, cols: number): Float64Array {
  const turned = new Float64Array(rows * cols);
  for (let i = 0; i < rows; i++) for (let j = 0; j < cols; j++) turned[j * rows + i] = values[i * cols + j] ?? NaN;
  return turned;
}
