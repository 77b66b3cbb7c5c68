/** Model shapes that the benches use, with random weights and tied embeddings. */
export interface ModelShape {
  readonly family: 'llama' | 'gpt2';
  readonly name: string;
  readonly hidden: number;
  readonly layers: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly intermediate: number;
  readonly vocab: number;
  readonly positions: number;
}

export const shapes: Readonly<Record<string, ModelShape>> = {
  tiny: { family: 'llama', name: 'tiny Llama', hidden: 288, layers: 6, heads: 6, kvHeads: 6, intermediate: 768, vocab: 32000, positions: 2048 },
  smollm: { family: 'llama', name: "SmolLM-135M's shape", hidden: 576, layers: 30, heads: 9, kvHeads: 3, intermediate: 1536, vocab: 49152, positions: 2048 },
  gpt2: { family: 'gpt2', name: "GPT-2 124M's shape", hidden: 768, layers: 12, heads: 12, kvHeads: 12, intermediate: 3072, vocab: 50257, positions: 1024 },
};

/** The shapes that a bench's options name, or its usual ones. @throws Error for a name that no shape has */
export function chosenModels(bench: string, shape: string | null, usual: readonly string[]): readonly (readonly [key: string, shape: ModelShape])[] {
  return (shape === null ? usual : shape.split(',')).map((key) => {
    const found = shapes[key];
    if (found === undefined) throw new Error(`${bench}: --shape must be one of ${Object.keys(shapes).join(', ')} (found ${key})`);
    return [key, found] as const;
  });
}
