import { launch } from './kernel.ts';
import { Remade } from './remade.ts';
import { adopt, isTemporary, keep, scope, scopeDepth } from './scope.ts';
import type { Tensor } from './tensor.ts';

/**
 * The gradient of one input, as its op's rule returns it: a tensor (a new one, or dy itself to pass it on), or null where no
 * gradient flows.
 */
export type Gradient = Tensor | null;

/** What a rule may ask while the tape goes backward. */
export interface Backward {
  /** Whether the gradient of input `i` is wanted at all. */
  needs(i: number): boolean;
  /**
   * The gradient that reached input `i` on another way so far, or null. Whoever takes it must add it to what the rule returns
   * for that input: a kernel that can do so in the same pass saves one.
   */
  takePending(i: number): Tensor | null;
}

/** How an op goes back: saved tensors and dy in, gradients of its inputs out. Runs in a scope of its own. */
export type Rule = (dy: Tensor, backward: Backward) => readonly Gradient[];

interface Node {
  readonly inputs: readonly (Tensor | null)[];
  readonly output: Tensor;
  readonly saved: readonly Tensor[];
  readonly rule: Rule;
  /** Fills `output` again from `saved` (src/remade.ts). */
  readonly remake?: (() => void) | undefined;
}

/**
 * Records ops and goes back through them once. It owns what the ops saved: each saved tensor is released as soon as
 * the last rule that needs it has run. Of what a cheap op made it may own nothing and make it again.
 */
export class Tape {
  /**
   * Runs `body` with this tape recording, in a scope of its own. Tapes nest; the innermost records. What was made before
   * keeps its owner, though ops save it: it must outlive the backward pass.
   */
  record<T>(body: () => T): T {
    this.#depth = scopeDepth();
    return withTape(this, () => scope(body));
  }
  readonly #nodes: Node[] = [];
  readonly #wanted = new Set<Tensor>();
  readonly #holds = new Map<Tensor, number>();
  readonly #remade = new Remade();
  #gradients = new Map<Tensor, Tensor>();
  #savedBytes = 0;
  #depth = 0;

  /** Bytes kept for the backward pass at this moment, parameters not counted. */
  get savedBytes(): number {
    return this.#savedBytes;
  }
  /** Marks a tensor whose gradient is wanted though no op made it. */
  watch(tensor: Tensor): void {
    this.#wanted.add(tensor);
  }
  /** Whether a gradient must flow through this tensor. */
  wants(tensor: Tensor | null): boolean {
    return tensor !== null && this.#wanted.has(tensor);
  }
  /** @internal Called by {@link defineOp}'s ops. */
  add(node: Node): void {
    this.#nodes.push(node);
    this.#wanted.add(node.output);
    for (const tensor of node.saved) this.#hold(tensor);
    if (node.remake !== undefined) this.#remade.add(node.output, node.saved, node.remake);
  }

  /**
   * Goes back from `output`, whose gradient is `seed` (the tape takes it over), or from several, each with its own. Parameters collect
   * their gradients in their arena; gradients of watched tensors come back in the map, owned by the caller.
   */
  backward(output: Tensor | readonly Tensor[], seed: Tensor | readonly Tensor[]): Map<Tensor, Tensor> {
    const seeds = [seed].flat();
    this.#gradients = new Map([output].flat().map((each, i) => [each, keep(seeds[i] as Tensor)]));
    try {
      for (let node = this.#nodes.pop(); node !== undefined; node = this.#nodes.pop()) this.#step(node);
      return this.#gradients;
    } catch (error) {
      for (const gradient of this.#gradients.values()) gradient.dispose();
      throw error;
    } finally {
      this.dispose();
    }
  }

  #step(node: Node): void {
    const dy = this.#gradients.get(node.output);
    this.#gradients.delete(node.output);
    if (dy !== undefined) {
      let passed = false;
      try {
        for (const tensor of node.saved) this.#remade.bring(tensor);
        passed = this.#apply(node, dy);
      } finally {
        if (!passed) dy.dispose();
      }
    }
    for (const tensor of node.saved) this.#release(tensor);
  }

  // True when dy itself went on as the gradient of an input.
  #apply(node: Node, dy: Tensor): boolean {
    let passed = false;
    scope(() => {
      const gradients = node.rule(dy, this.#backwardOf(node));
      node.inputs.forEach((input, i) => {
        const gradient = gradients[i] ?? null;
        if (gradient === null || input === null || !this.wants(input)) return;
        if (gradient === dy) {
          // One tensor, one owner: a second taker of dy gets a sum or a copy, never the same bytes.
          passed = this.#passOn(input, dy, passed) || passed;
        } else {
          this.#accumulate(input, gradient);
        }
      });
    });
    return passed;
  }

  #passOn(input: Tensor, dy: Tensor, alreadyPassed: boolean): boolean {
    const before = this.#gradients.get(input);
    if (before !== undefined) {
      launch('add', before, before, dy);
      return false;
    }
    if (!alreadyPassed) {
      this.#gradients.set(input, dy);
      return true;
    }
    const copy = keep(dy.like());
    launch('copy', copy, dy);
    this.#gradients.set(input, copy);
    return false;
  }

  #accumulate(input: Tensor, gradient: Tensor): void {
    const before = this.#gradients.get(input);
    if (before === undefined) {
      this.#gradients.set(input, keep(gradient));
    } else {
      launch('add', before, before, gradient);
    }
  }

  #backwardOf(node: Node): Backward {
    const input = (i: number): Tensor | null => node.inputs[i] ?? null;
    return {
      needs: (i) => this.wants(input(i)),
      takePending: (i) => {
        const tensor = input(i);
        const pending = tensor === null ? undefined : this.#gradients.get(tensor);
        if (tensor === null || pending === undefined) return null;
        this.#gradients.delete(tensor);
        adopt(pending);
        return pending;
      },
    };
  }

  #hold(tensor: Tensor): void {
    if (this.#remade.hold(tensor)) return;
    const held = this.#holds.get(tensor);
    if (held !== undefined) {
      this.#holds.set(tensor, held + 1);
    } else if (isTemporary(tensor, this.#depth)) {
      keep(tensor);
      this.#holds.set(tensor, 1);
      this.#savedBytes += tensor.byteLength;
    }
  }

  #release(tensor: Tensor): void {
    if (this.#remade.release(tensor)) return;
    const held = this.#holds.get(tensor);
    if (held === undefined) return;
    if (held > 1) {
      this.#holds.set(tensor, held - 1);
      return;
    }
    this.#holds.delete(tensor);
    this.#savedBytes -= tensor.byteLength;
    tensor.dispose();
  }

  /** Lets go of everything that was recorded. */
  dispose(): void {
    this.#nodes.length = 0;
    this.#wanted.clear();
    for (const tensor of this.#holds.keys()) tensor.dispose();
    this.#holds.clear();
    this.#remade.dispose();
    this.#savedBytes = 0;
  }
  /** The end of a `using` block. */
  [Symbol.dispose](): void {
    this.dispose();
  }
}

let active: Tape | null = null;

/** The tape that records now, or null. */
export function activeTape(): Tape | null {
  return active;
}

function withTape<T>(tape: Tape | null, body: () => T): T {
  const before = active;
  active = tape;
  try {
    return body();
  } finally {
    active = before;
  }
}

/** Runs `body` with no tape recording: for evaluation inside a recorded program. */
export function untaped<T>(body: () => T): T {
  return withTape(null, body);
}

/**
 * Runs `body(x)` without keeping what it saves; when the tape comes back it runs once more, so that only x is held in
 * between. `body` must do the same both times (dropout does: its masks are drawn from counters).
 *
 * @example
 * ```ts
 * import { checkpoint, ops, openDevice, Tape } from 'lowrank';
 * await using device = await openDevice('cpu');
 * using x = device.tensor(new Float32Array(8).fill(1), [2, 4]);
 * using w = device.tensor(new Float32Array(4).fill(1));
 * using tape = new Tape();
 * tape.watch(x);
 * using y = tape.record(() => checkpoint((h) => ops.rmsNorm(h, w, 1e-5), x));
 * using dx = tape.backward(y, device.tensor(new Float32Array(8).fill(1), [2, 4])).get(x)!;
 * ```
 */
export function checkpoint(body: (x: Tensor) => Tensor, x: Tensor): Tensor {
  const tape = active;
  if (tape === null) return scope(() => body(x));
  const y = withTape(null, () => scope(() => body(x)));
  const rule: Rule = (dy, backward) => {
    using inner = new Tape();
    if (backward.needs(0)) inner.watch(x);
    const again = inner.record(() => body(x));
    const gradients = inner.backward(again, dy.view(dy.shape));
    const dx = gradients.get(x) ?? null;
    if (dx !== null) adopt(dx);
    return [dx];
  };
  tape.add({ inputs: [x], output: y, saved: [x], rule });
  return y;
}
