import type { Weight } from './device.ts';
import { LowrankError } from './error.ts';
import { addon, guarded } from './native.ts';
import type { Tensor } from './tensor.ts';

/** An operand of a kernel, in the order of its contract (native/ops); null is an optional operand that is not given. */
export type Operand = Tensor | Weight | number | null;

/**
 * Queues one kernel. Shapes, dtypes and devices are checked before this returns.
 *
 * @throws LowrankError ERR_SHAPE, ERR_DTYPE, ERR_DEVICE, ERR_DISPOSED, ERR_ARGUMENT
 */
export function launch(name: string, ...operands: readonly Operand[]): void {
  const kernel = addon().ops[name];
  if (kernel === undefined) throw new LowrankError('ERR_INTERNAL', `${name}: there is no such kernel`);
  guarded(() => kernel(...operands.map(asNumber)));
}

function asNumber(operand: Operand): number {
  if (typeof operand === 'number') return operand;
  return operand === null ? 0 : operand.handle;
}
