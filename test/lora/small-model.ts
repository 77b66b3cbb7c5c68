import type { Device } from '../../src/device.ts';
import type { Checkpointing, Model, ModelFacts, TokenBatch } from '../../src/models/model.ts';
import { Linear } from '../../src/nn/linear.ts';
import { embedding } from '../../src/ops/embedding.ts';
import { cast } from '../../src/ops/elementwise.ts';
import { gelu } from '../../src/ops/gelu.ts';
import { rmsNorm } from '../../src/ops/rms_norm.ts';
import { checkpoint } from '../../src/tape.ts';
import type { DType, Tensor } from '../../src/tensor.ts';
import { normals } from '../reference/finite-difference.ts';

export const V = 11;
export const C = 6;
/** Rows of q, k and v: uneven, so that no two parts can be taken for one another. */
export const joined = [7, 4, 5] as const;

export interface SmallModelOptions {
  readonly tied?: boolean;
  readonly dtype?: DType;
  readonly order?: 'out_in' | 'in_out';
  readonly layers?: number;
}

/** q, k and v names of a layer. */
export const attentionNames = (layer: number): string[] => ['q', 'k', 'v'].map((part) => `model.layers.${layer}.self_attn.${part}_proj`);
export const downName = (layer: number): string => `model.layers.${layer}.mlp.down_proj`;

/**
 * A decoder without attention, small enough to differentiate by differences: per layer h + down(gelu(q|k|v(norm(h)))), then a norm and
 * a head. It has what an adapter meets: joined parts, a carry, an output head that is tied or not.
 */
export function smallModel(device: Device, { tied = false, dtype = 'f32', order = 'out_in', layers = 2 }: SmallModelOptions = {}): Model {
  const width = joined[0] + joined[1] + joined[2];
  let seed = 1;
  const matrix = (out: number, width: number): Tensor => {
    const shape = order === 'out_in' ? [out, width] : [width, out];
    const values = device.tensor(Float32Array.from(normals(out * width, seed++), (x) => x / Math.sqrt(width)), shape);
    return dtype === 'f32' ? values : narrowed(values, dtype);
  };
  const embed = device.tensor(Float32Array.from(normals(V * C, 99)), [V, C]);
  const ones = device.tensor(new Float32Array(C).fill(1));
  const blocks = Array.from({ length: layers }, (_, layer) => ({
    attention: new Linear(attentionNames(layer).map((name, i) => ({ name, matrix: matrix(joined[i] as number, C) })), null, order),
    down: new Linear([{ name: downName(layer), matrix: matrix(C, width) }], null, order),
  }));
  const head = tied ? null : new Linear([{ name: 'lm_head', matrix: matrix(V, C) }], null, order);
  const tiedHead = tied ? device.weight([embed]) : null;
  const block = ({ attention, down }: (typeof blocks)[number], h: Tensor): Tensor => down.forward(gelu(attention.forward(rmsNorm(h, ones, 1e-6)), 'erf'), h);
  const run = ({ ids }: TokenBatch, checkpointing: Checkpointing, enter: () => void): Tensor => {
    const layer = (each: (typeof blocks)[number], x: Tensor): Tensor => (enter(), block(each, x));
    let h = embedding(ids, embed);
    for (const each of blocks) h = checkpointing === 'none' ? layer(each, h) : checkpoint((x) => layer(each, x), h);
    return rmsNorm(h, ones, 1e-6);
  };
  return {
    device,
    facts: { family: 'llama', folder: 'small', layers, tied, outputHead: 'lm_head', vocabSize: V, hiddenSize: C } as ModelFacts,
    linears: [...blocks.flatMap(({ attention, down }) => [attention, down]), ...(head === null ? [] : [head])],
    get head() {
      return { weight: (tiedHead ?? head?.weight) as Linear['weight'], linear: head };
    },
    hidden(batch: TokenBatch, checkpointing = 'none'): Tensor {
      return run(batch, checkpointing, () => undefined);
    },
    hiddenEach(batches, checkpointing, enter): Tensor[] {
      const lastFirst = batches.map((batch, i) => [batch, i] as const).reverse();
      return lastFirst.map(([batch, i]) => run(batch, checkpointing, () => enter(i))).reverse();
    },
    logits: (hidden) => (head as Linear).forward(hidden),
    newCache: () => fail(),
    decode: () => fail(),
    decodeEach: () => fail(),
    dispose() {
      for (const { attention, down } of blocks) [attention, down].forEach((linear) => linear.dispose());
      head?.dispose();
      tiedHead?.dispose();
      [embed, ones].forEach((tensor) => tensor.dispose());
    },
  };
}

function fail(): never {
  throw new Error('the small model does not generate');
}

function narrowed(values: Tensor, dtype: DType): Tensor {
  const narrow = cast(values, dtype);
  values.dispose();
  return narrow;
}
