import { makesAgain } from './remade.ts';
import { scope } from './scope.ts';
import { activeTape, type Rule } from './tape.ts';
import type { Tensor } from './tensor.ts';

/** What an op's forward pass leaves: its output, and how to go back from it. */
export interface Forward {
  readonly out: Tensor;
  /** The tensors a gradient can flow to, in the order of the rule's result. */
  readonly inputs: readonly (Tensor | null)[];
  /** What the rule reads; the tape holds these until it has run. */
  readonly saved: readonly Tensor[];
  readonly rule: Rule;
  /** Records even if no input wants a gradient, because the op has parameters of its own that do. */
  readonly trains?: boolean;
  /** Fills `out` again from `saved`, where that is a pass over memory: then others may save `out` without its bytes being kept. */
  readonly remake?: () => void;
}

/**
 * Makes an op of a forward function: runs it in a scope of its own, so that temporaries are gone at once, and records it
 * when a tape is active and a gradient must flow.
 */
export function defineOp<Arguments extends readonly unknown[]>(
  forward: (...operands: Arguments) => Forward,
): (...operands: Arguments) => Tensor {
  return (...operands) =>
    scope(() => {
      const { out, inputs, saved, rule, trains, remake } = forward(...operands);
      const tape = activeTape();
      if (tape !== null && (trains === true || inputs.some((input) => tape.wants(input))))
        tape.add({ inputs, output: out, saved, rule, remake: makesAgain(out.device.kind) ? remake : undefined });
      return out;
    });
}
