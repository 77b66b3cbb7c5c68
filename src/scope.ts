import type { Tensor } from './tensor.ts';

/**
 * @internal Who disposes of a tensor. A new tensor belongs to the innermost open scope; the tape and modules take it over with
 * {@link keep}. With no scope open it belongs to the user.
 */
export class Scope {
  readonly tensors = new Set<Tensor>();
  /** How many scopes were open before it. */
  readonly depth = open.length;
}

const open: Scope[] = [];

/** @internal Gives a tensor to the innermost scope; called by each new tensor. */
export function adopt(tensor: Tensor): void {
  const scope = open[open.length - 1];
  if (scope === undefined) return;
  scope.tensors.add(tensor);
  tensor.owner = scope;
}

/** @internal Called by each disposed tensor, and by {@link keep}. */
export function disown(tensor: Tensor): void {
  tensor.owner?.tensors.delete(tensor);
  tensor.owner = null;
}

/** Takes tensors out of whatever scope owns them: from now on the caller disposes of them. */
export function keep<T extends Tensor>(tensor: T): T {
  disown(tensor);
  return tensor;
}

/** How many scopes are open. */
export function scopeDepth(): number {
  return open.length;
}

/** Whether a tensor belongs to a scope that was opened when at least `depth` others were open. */
export function isTemporary(tensor: Tensor, depth = 0): boolean {
  return tensor.owner !== null && tensor.owner.depth >= depth;
}

/**
 * Runs `body` and disposes of every tensor made in it, except those it returns (a tensor or an array of them), which go
 * to the enclosing scope. Synchronous: ops only queue work.
 *
 * @example
 * ```ts
 * import { openDevice, ops, scope } from 'lowrank';
 * await using device = await openDevice('cpu');
 * using x = device.tensor(new Float32Array(8), [2, 4]);
 * using y = scope(() => ops.add(ops.add(x, x), x)); // the inner sum is gone, y stays
 * ```
 */
export function scope<T>(body: () => T): T {
  const own = new Scope();
  open.push(own);
  let result: T;
  try {
    result = body();
  } catch (error) {
    open.pop();
    disposeAll(own);
    throw error;
  }
  open.pop();
  for (const tensor of returned(result)) {
    if (!own.tensors.has(tensor)) continue;
    disown(tensor);
    adopt(tensor);
  }
  disposeAll(own);
  return result;
}

function disposeAll(scope: Scope): void {
  for (const tensor of [...scope.tensors]) tensor.dispose();
}

function returned(result: unknown): readonly Tensor[] {
  if (Array.isArray(result)) return result as readonly Tensor[];
  return typeof result === 'object' && result !== null && 'handle' in result ? [result as Tensor] : [];
}
