import { linear, linearGrad } from './linear.ts';
import type { Numbers } from './numbers.ts';

/** A token with this target has no loss and no gradient. */
export const IGNORE = -100;

export interface CrossEntropyArgs {
  logits: Numbers; // [T, V]
  targets: Numbers; // [T]
  T: number;
  V: number;
}

/** Sum of -log softmax(logits)[target] over the tokens that count (nats), how many count, and lse [T]. */
export function crossEntropy(args: CrossEntropyArgs): { loss: number; count: number; lse: Float64Array } {
  const { logits, targets, T, V } = args;
  const lse = new Float64Array(T);
  let loss = 0;
  let count = 0;
  for (let t = 0; t < T; t++) {
    let max = -Infinity;
    for (let v = 0; v < V; v++) max = Math.max(max, logits[t * V + v]!);
    let sum = 0;
    for (let v = 0; v < V; v++) sum += Math.exp(logits[t * V + v]! - max);
    lse[t] = max + Math.log(sum);
    if (targets[t] === IGNORE) continue;
    loss += lse[t]! - logits[t * V + targets[t]!]!;
    count++;
  }
  return { loss, count, lse };
}

/** dlogits [T, V] = (softmax - onehot) * scale; zero rows where the target is ignored. */
export function crossEntropyGrad({ scale, ...args }: CrossEntropyArgs & { scale: number }): Float64Array {
  const { logits, targets, T, V } = args;
  const { lse } = crossEntropy(args);
  const dlogits = new Float64Array(T * V);
  for (let t = 0; t < T; t++) {
    if (targets[t] === IGNORE) continue;
    for (let v = 0; v < V; v++) {
      dlogits[t * V + v] = scale * (Math.exp(logits[t * V + v]! - lse[t]!) - (v === targets[t] ? 1 : 0));
    }
  }
  return dlogits;
}

export interface LinearCrossEntropyArgs {
  x: Numbers; // [T, C]
  W: Numbers; // [V, C]
  targets: Numbers; // [T]
  T: number;
  C: number;
  V: number;
  scale: number; // of the gradient, not of the loss
}

/** Cross entropy of logits = x Wᵀ: the loss sum, how many tokens count, and dx [T, C] times `scale`. W is frozen. */
export function linearCrossEntropy(args: LinearCrossEntropyArgs): { loss: number; count: number; dx: Float64Array } {
  const { x, W, targets, T, C, V, scale } = args;
  const logits = linear({ x, W, T, N: V, K: C });
  const { loss, count } = crossEntropy({ logits, targets, T, V });
  const dy = crossEntropyGrad({ logits, targets, T, V, scale });
  return { loss, count, dx: linearGrad({ dy, W, T, N: V, K: C }) };
}
