/** Model shapes that the benches use, with random weights. */
export interface ModelShape {
  readonly name: string;
  readonly hidden: number;
  readonly layers: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly intermediate: number;
  readonly vocab: number;
}

export const shapes: Readonly<Record<string, ModelShape>> = {
  tiny: { name: 'tiny Llama', hidden: 288, layers: 6, heads: 6, kvHeads: 6, intermediate: 768, vocab: 32000 },
  smollm: { name: "SmolLM-135M's shape", hidden: 576, layers: 30, heads: 9, kvHeads: 3, intermediate: 1536, vocab: 49152 },
};
