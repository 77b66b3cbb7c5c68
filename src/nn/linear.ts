import type { Device, Weight, WeightOrder } from '../device.ts';
import { LowrankError } from '../error.ts';
import { linear } from '../ops/linear.ts';
import { loraLinear, type LoraOperands } from '../ops/lora_linear.ts';
import type { Tensor } from '../tensor.ts';

/** One matrix of a joined projection, as the checkpoint stores it. */
export interface LinearPart {
  /** Its module's full name in the checkpoint: `model.layers.0.self_attn.q_proj`. */
  readonly name: string;
  /** [out, in], or [in, out] with order `in_out`. f32, f16 or bf16. */
  readonly matrix: Tensor;
}

/**
 * A frozen linear layer, or several that read the same x (q|k|v, gate|up) as one. Owns its matrices and bias. An adapter
 * that is active sets `lora`.
 */
export class Linear {
  readonly device: Device;
  readonly order: WeightOrder;
  readonly bias: Tensor | null;
  /** What the active adapter adds; null: nothing. Set by the adapter. */
  lora: LoraOperands | null = null;
  #parts: readonly LinearPart[];
  #weight: Weight;

  constructor(parts: readonly LinearPart[], bias: Tensor | null = null, order: WeightOrder = 'out_in') {
    const first = parts[0];
    if (first === undefined) throw new LowrankError('ERR_ARGUMENT', 'Linear: at least one part is required (found none)');
    this.device = first.matrix.device;
    this.order = order;
    this.bias = bias;
    this.#parts = parts;
    this.#weight = this.device.weight(parts.map((part) => part.matrix), order);
  }
  get parts(): readonly LinearPart[] {
    return this.#parts;
  }
  /** The frozen weight [out of all parts, in]. */
  get weight(): Weight {
    return this.#weight;
  }
  get inFeatures(): number {
    return this.#weight.in;
  }
  /** Rows of each part. */
  get outFeatures(): readonly number[] {
    return this.#weight.out;
  }
  /** x [T, in] to [T, out of all parts]; `carry` [T, out] is added. */
  forward(x: Tensor, carry: Tensor | null = null): Tensor {
    const frozen = { weight: this.#weight, bias: this.bias };
    return this.lora === null ? linear(x, frozen, carry) : loraLinear(x, frozen, this.lora, carry);
  }
  /**
   * Puts other matrices in place of the present ones (merging), and returns those: the caller owns them then.
   * Their shapes and dtypes must be the same.
   */
  exchange(matrices: readonly Tensor[]): readonly Tensor[] {
    const before = this.#parts.map((part) => part.matrix);
    const weight = this.device.weight(matrices, this.order);
    this.#weight.dispose();
    this.#weight = weight;
    this.#parts = this.#parts.map((part, i) => ({ name: part.name, matrix: matrices[i] as Tensor }));
    return before;
  }
  /** Releases the weight. */
  dispose(): void {
    this.#weight.dispose();
    for (const part of this.#parts) part.matrix.dispose();
    this.bias?.dispose();
  }
}
