import type { Tensor } from './tensor.ts';

/**
 * Whether outputs that a pass over memory makes (norms, gates) are made again on the way back rather than kept. On a CPU that pass is next
 * to nothing beside the products: under 1 % of a step for a third of its activations. On a GPU it is, by arithmetic, 3 % of a Llama-3-8B
 * layer: there they are kept, and `checkpoint` is for those who want the memory.
 */
export const makesAgain = (deviceKind: string): boolean => deviceKind === 'cpu';

interface Entry {
  /** Fills the tensor from `from`, as the forward pass did. */
  readonly make: () => void;
  readonly from: readonly Tensor[];
  /** How many rules are still to read it. */
  uses: number;
  /** It was made again, and is ours to dispose of. */
  ours: boolean;
}

/** What a tape makes again: it owns no bytes of these tensors before a rule wants them, whoever made them disposes of them as ever. */
export class Remade {
  readonly #entries = new Map<Tensor, Entry>();

  add(tensor: Tensor, from: readonly Tensor[], make: () => void): void {
    this.#entries.set(tensor, { make, from, uses: 0, ours: false });
  }
  /** Counts a rule that will read the tensor. False: it isn't one of these. */
  hold(tensor: Tensor): boolean {
    const entry = this.#entries.get(tensor);
    if (entry !== undefined) entry.uses++;
    return entry !== undefined;
  }
  /** Sees to it that the tensor has its bytes. */
  bring(tensor: Tensor): void {
    const entry = this.#entries.get(tensor);
    if (entry === undefined || !tensor.disposed) return;
    for (const each of entry.from) this.bring(each);
    tensor.revive();
    entry.ours = true;
    entry.make();
  }
  /** A rule has run. False: the tensor isn't one of these. */
  release(tensor: Tensor): boolean {
    const entry = this.#entries.get(tensor);
    if (entry === undefined) return false;
    if (--entry.uses === 0 && entry.ours) tensor.dispose();
    return true;
  }
  dispose(): void {
    for (const [tensor, { ours }] of this.#entries) if (ours) tensor.dispose();
    this.#entries.clear();
  }
}
