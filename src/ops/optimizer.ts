import { launch } from '../kernel.ts';
import type { Tensor } from '../tensor.ts';

/** What every step asks first: nothing changes when a loss or the gradient norm is not finite; then the gradient is clipped. */
export interface Gate {
  readonly sumSquares: Tensor; // [1], of the whole gradient
  readonly losses: Tensor; // [micro-batches]
  readonly clip: number; // greatest norm of the gradient; 0: not clipped
  readonly lossScale?: number; // what the losses were multiplied by before they went back: taken out of the gradient before all else; 1
}

const gateOperands = ({ sumSquares: sum, losses, clip, lossScale = 1 }: Gate): [Tensor, Tensor, number, number] => [sum, losses, clip, lossScale];

/** Numbers of one AdamW step. */
export interface AdamwNumbers {
  readonly lr: number;
  readonly beta1: number;
  readonly beta2: number;
  readonly eps: number;
  readonly weightDecay: number;
  /** 1-based: how many steps this makes, for the bias correction. */
  readonly step: number;
}

/** sum ← Σ x², [1]. */
export function sumSquares(sum: Tensor, x: Tensor): void {
  launch('sum_squares', sum, x);
}

/** One AdamW step on flat f32 tensors of one shape (torch.optim.AdamW's arithmetic). */
export function adamwInplace(p: Tensor, m: Tensor, v: Tensor, g: Tensor, gate: Gate, numbers: AdamwNumbers): void {
  const { lr, beta1, beta2, eps, weightDecay, step } = numbers;
  const corrections = [1 - beta1 ** step, 1 - beta2 ** step];
  launch('adamw', p, m, v, g, ...gateOperands(gate), lr, beta1, beta2, eps, weightDecay, ...corrections);
}

/** Numbers of one SGD step. */
export interface SgdNumbers {
  readonly lr: number;
  readonly momentum: number;
  readonly weightDecay: number;
  readonly step: number;
}

/** One SGD step on flat f32 tensors (torch.optim.SGD's arithmetic); `buffer` only with momentum. */
export function sgdInplace(p: Tensor, buffer: Tensor | null, g: Tensor, gate: Gate, numbers: SgdNumbers): void {
  const { lr, momentum, weightDecay, step } = numbers;
  launch('sgd', p, buffer, g, ...gateOperands(gate), lr, momentum, weightDecay, step === 1 ? 1 : 0);
}
