import type { Device, Weight } from '../device.ts';
import type { Linear } from '../nn/linear.ts';
import type { KeyValueCache } from '../ops/attention.ts';
import type { Tensor } from '../tensor.ts';

/** Token rows of several sequences, one after the other, on the device; there is no padding. */
export interface TokenBatch {
  readonly ids: Tensor; // [T] i32
  readonly positions: Tensor; // [T] i32
  readonly offsets: Tensor; // [S+1] i32
  /** One above the greatest position, for tables that depend on it. */
  readonly length: number;
}

/** Whether blocks are run again on the way back, so that only their inputs are held. */
export type Checkpointing = 'none' | 'blocks';

/** Keys and values of one sequence in every block. */
export interface Cache {
  readonly layers: readonly KeyValueCache[];
  readonly capacity: number; // positions
  /** Positions filled so far. */
  length: number;
  /** Releases its memory. */
  dispose(): void;
}

/** What `config.json` says, in common words. */
export interface ModelFacts {
  readonly family: string; // model_type
  readonly folder: string;
  readonly hiddenSize: number;
  readonly layers: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headSize: number;
  readonly intermediateSize: number;
  readonly vocabSize: number;
  readonly maxPositions: number;
  readonly tied: boolean;
  readonly parameters: number;
  /** dtype of the linear weights. */
  readonly dtype: string;
  /** Module name of the output head; adapters leave it out of `all-linear`. */
  readonly outputHead: string;
  /** The raw config.json. */
  readonly config: Readonly<Record<string, unknown>>;
}

/** A frozen decoder. Forward only: what trains is an adapter's. */
export interface Model {
  readonly device: Device;
  readonly facts: ModelFacts;
  /** Every linear layer an adapter can attach to, in order of use; the output head last if it has a matrix of its own. */
  readonly linears: readonly Linear[];
  /** The output head's weight [V, C] (the embedding's, when tied), or its Linear when an adapter is attached to it. */
  readonly head: { readonly weight: Weight; readonly linear: Linear | null };
  /** Final normed hidden states [T, C]. Records on the active tape. */
  hidden(batch: TokenBatch, checkpointing?: Checkpointing): Tensor;
  /**
   * What `hidden` gives for each of several batches, but layer by layer: all go through a layer before the next one's weights are read, the
   * last batch first, so that a tape goes back through each layer with the first batch first, as it would through one batch after the
   * other. `enter(i)` is called before ops of batch i, also before those that checkpointing does again.
   */
  hiddenEach(batches: readonly TokenBatch[], checkpointing: Checkpointing, enter: (i: number) => void): Tensor[];
  /** Logits [T, V] of hidden states. */
  logits(hidden: Tensor): Tensor;
  /** Room for keys and values of `capacity` tokens. */
  newCache(capacity: number): Cache;
  /**
   * Runs T new tokens of one sequence behind what the cache holds; hidden states [T, C]. No gradient. `length`, where given, is
   * how long the whole prompt is: rope types that depend on a sequence's length then treat its pieces as one.
   */
  decode(ids: readonly number[], cache: Cache, length?: number): Tensor;
  /** Runs one new token of each of S sequences, each behind what its own cache holds; hidden states [S, C]. No gradient. */
  decodeEach(ids: readonly number[], caches: readonly Cache[]): Tensor;
  /** Releases its memory. */
  dispose(): void;
}
