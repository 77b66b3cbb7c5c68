import { expect } from 'vitest';
import type { Device, Weight, WeightOrder } from '../../src/device.ts';
import type { DType, Shape, Tensor } from '../../src/tensor.ts';
import { normals } from '../reference/finite-difference.ts';
import { bf16Bits, bf16Value, f16Bits, f16Value } from '../reference/half.ts';
import type { Numbers } from '../reference/numbers.ts';

/** Elements of guard on each side of an operand, and what they hold: a NaN with a payload nobody computes. */
const guardElements = 32;
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

/**
 * Puts operands on a device the way the parity harness wants them: between guards, misaligned on demand, outputs full of NaN. Knows
 * afterwards whether a kernel wrote where it must not.
 */
export class Bench {
  readonly device: Device;
  readonly #misalign: Misalign;
  readonly #operands: Operand[] = [];
  readonly #weights: Weight[] = [];
  readonly #views: Tensor[] = [];
  #seed: number;

  constructor(device: Device, misalign: Misalign, seed: number) {
    this.device = device;
    this.#misalign = misalign;
    this.#seed = seed;
  }
  /** `count` normal numbers times `scale`, as the dtype holds them. */
  random(count: number, { scale = 1, dtype = 'f32' as DType } = {}): Float64Array {
    return normals(count, this.#seed++).map((x) => roundTo(x * scale, dtype));
  }
  /** An operand that is only read. */
  input(values: Numbers, shape: Shape, dtype: DType = 'f32'): Tensor {
    return this.#place(encode(values, dtype), shape, dtype, 'read');
  }
  ints(values: Numbers, shape: Shape = [values.length]): Tensor {
    return this.input(values, shape, 'i32');
  }
  /** An operand that is read and written. */
  inout(values: Numbers, shape: Shape, dtype: DType = 'f32'): Tensor {
    return this.#place(encode(values, dtype), shape, dtype, 'written');
  }
  /** An operand that is written: full of NaN before. */
  output(shape: Shape, dtype: DType = 'f32'): Tensor {
    const count = shape.reduce((n, dim) => n * dim, 1);
    return this.inout(new Float64Array(count).fill(NaN), shape, dtype);
  }
  /** A frozen weight of parts [N_i, K], stored in `order`. */
  weight(parts: readonly { readonly values: Numbers; readonly out: number }[], k: number, dtype: DType, order: WeightOrder = 'out_in'): Weight {
    const stored = parts.map(({ values, out }) =>
      order === 'out_in' ? this.input(values, [out, k], dtype) : this.input(transposed(values, out, k), [k, out], dtype));
    const weight = this.device.weight(stored, order);
    this.#weights.push(weight);
    return weight;
  }
  #place(bytes: Uint8Array, shape: Shape, dtype: DType, role: Operand['role']): Tensor {
    const size = { f32: 4, f16: 2, bf16: 2, i32: 4, u8: 1 }[dtype];
    const offset = guardElements + this.#misalign;
    const count = bytes.length / size;
    const total = offset + count + guardElements;
    const whole = this.device.empty([total], dtype);
    const before = guards(total * size);
    before.set(bytes, offset * size);
    whole.upload(before);
    this.#operands.push({ whole, before, begin: offset * size, end: offset * size + bytes.length, role });
    const view = whole.view(shape, offset);
    this.#views.push(view);
    return view;
  }
  /** Fails if a guard or an operand that is only read has changed. */
  async checkBounds(): Promise<void> {
    for (const { whole, before, begin, end, role } of this.#operands) {
      const after = new Uint8Array(await whole.bytes());
      const changed = after.findIndex((byte, i) => byte !== before[i] && (role === 'read' || i < begin || i >= end));
      expect(changed, `an operand was written at byte ${changed - begin} of ${end - begin} (${role})`).toBe(-1);
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

function encode(values: Numbers, dtype: DType): Uint8Array {
  if (dtype === 'f32') return new Uint8Array(Float32Array.from(values).buffer);
  if (dtype === 'i32') return new Uint8Array(Int32Array.from(values).buffer);
  return new Uint8Array(Uint16Array.from(values, dtype === 'f16' ? f16Bits : bf16Bits).buffer);
}

function guards(bytes: number): Uint8Array {
  const words = new Uint32Array(Math.ceil(bytes / 4)).fill(guardWord);
  return new Uint8Array(words.buffer, 0, bytes);
}

export function transposed(values: Numbers, rows: number, cols: number): Float64Array {
  return Float64Array.from({ length: rows * cols }, (_, i) => values[(i % rows) * cols + Math.floor(i / rows)] ?? NaN);
}
