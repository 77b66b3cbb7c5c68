import { LowrankError } from '../error.ts';
import type { Tensor } from '../tensor.ts';

/** The adapter of a joined projection of P parts (q|k|v is three). R is the sum of the ranks; rank 0 is a part without adapter. */
export interface LoraOperands {
  readonly a: Tensor; // [R, K], the parts one below the other
  readonly b: Tensor; // flat: part after part, each [N_i, r_i]
  readonly da: Tensor | null; // where gradients are added; null: not trained
  readonly db: Tensor | null;
  readonly ranks: readonly number[];
  readonly scales: readonly number[];
  readonly dropout: Dropout;
}

/** Where dropout masks are drawn from: the same numbers give the same mask, on every backend. */
export interface Dropout {
  readonly p: number; // 0: no dropout
  readonly seed: number; // up to 2^53
  readonly layers: readonly number[]; // a number of its own for each part
  readonly step: number; // differs between forward passes that must not share a mask
}

/** The numbers of operands without dropout: they stay the same, and are asked for at every token. */
const withoutDropout = new WeakMap<LoraOperands, readonly number[]>();

/** The scalars of an adapter, as contracts take them. */
export function partNumbers(lora: LoraOperands): readonly number[] {
  const dropout = lora.dropout;
  if (dropout.p !== 0) return numbersOf(lora, dropout);
  const known = withoutDropout.get(lora);
  if (known !== undefined) return known;
  const numbers = numbersOf(lora, dropout);
  withoutDropout.set(lora, numbers);
  return numbers;
}

function numbersOf({ ranks, scales }: LoraOperands, dropout: Dropout): readonly number[] {
  const three = (values: readonly number[]): number[] => [values[0] ?? 0, values[1] ?? 0, values[2] ?? 0];
  const { p, seed, layers, step } = dropout;
  return [...three(ranks), ...three(scales), ...three(layers), p, seed % 2 ** 32, Math.floor(seed / 2 ** 32), step];
}

/** dA and dB. @throws LowrankError ERR_UNSUPPORTED for an adapter that is not trained */
export function gradientsOf({ da, db }: LoraOperands): readonly [da: Tensor, db: Tensor] {
  if (da !== null && db !== null) return [da, db];
  throw new LowrankError('ERR_UNSUPPORTED', 'lora_linear: a gradient can pass only an adapter that is trained (da and db were not given)');
}
