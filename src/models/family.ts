import type { Linear } from '../nn/linear.ts';
import type { Tensor } from '../tensor.ts';
import { type ConfigReader, shown } from './config-reader.ts';
import type { Block } from './decoder.ts';
import type { Planned, WeightPlan } from './weights.ts';

/** What every family's configuration comes down to. */
export interface FamilyShape {
  readonly vocabSize: number;
  readonly hiddenSize: number;
  readonly intermediateSize: number;
  readonly layers: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headSize: number;
  /** How many positions a sequence may have by what the configuration promises. */
  readonly positionsReach: number;
  /** The output head is the embedding table. */
  readonly tied: boolean;
}

/** The modules of one loaded model. */
export interface FamilyParts {
  /** The token embedding, [V, C]. */
  readonly table: Tensor;
  readonly blocks: readonly Block[];
  /** The output head where it has a matrix of its own. */
  readonly headLinear: Linear | null;
  embed(ids: Tensor, positions: Tensor): Tensor;
  /** The norm behind the last block. */
  norm(x: Tensor): Tensor;
  /** Rope's table for sequences of this length; null in a model with learned positions. */
  ropeTable(length: number): Tensor | null;
  /** Learned positions: how many there are. */
  readonly positionRows?: number;
  /** Disposes of everything but the table and the head. */
  dispose(): void;
}

/** A family of architectures that differ by settings only. */
export interface Family {
  /** The values of `model_type` it reads. */
  readonly types: readonly string[];
  /** What the names of a base model's tensors lack. */
  readonly prefix: string;
  /** Reads a config.json, noting faults in `config`; `plan` asks for every tensor. */
  read(type: string, config: ConfigReader): { readonly shape: FamilyShape; readonly plan: (weights: WeightPlan) => Planned<FamilyParts> };
}

/** What no family supports. */
export function refuseCommon(config: ConfigReader): void {
  if (config.has('quantization_config')) {
    const method = config.inner('quantization_config').get('quant_method');
    config.refuse(`"quantization_config" must be absent; weights are f32, f16 or bf16 (its method: ${shown(method)})`);
  }
  config.mustBe('is_encoder_decoder', false);
  config.mustBe('add_cross_attention', false);
}
