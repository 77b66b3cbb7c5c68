/** Model shapes that the benches use, with random weights. */
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
  /** Whether the head is the embedding; true. */
  readonly tied?: boolean;
  /** Too large to be written tensor by tensor. */
  readonly large?: boolean;
}

const llama8b = { family: 'llama', name: 'Llama-3-8B', hidden: 4096, layers: 32, heads: 32, kvHeads: 8, intermediate: 14336, vocab: 128256, positions: 8192, tied: false, large: true } as const;

export const shapes: Readonly<Record<string, ModelShape>> = {
  tiny: { family: 'llama', name: 'tiny Llama', hidden: 288, layers: 6, heads: 6, kvHeads: 6, intermediate: 768, vocab: 32000, positions: 2048 },
  smollm: { family: 'llama', name: "SmolLM-135M's shape", hidden: 576, layers: 30, heads: 9, kvHeads: 3, intermediate: 1536, vocab: 49152, positions: 2048 },
  gpt2: { family: 'gpt2', name: "GPT-2 124M's shape", hidden: 768, layers: 12, heads: 12, kvHeads: 12, intermediate: 3072, vocab: 50257, positions: 1024 },
  llama1b: { family: 'llama', name: "Llama-3.2-1B's shape", hidden: 2048, layers: 16, heads: 32, kvHeads: 8, intermediate: 8192, vocab: 128256, positions: 8192, large: true },
  llama8b: { ...llama8b, name: "Llama-3-8B's shape" },
  'llama8b-layer': { ...llama8b, name: 'one layer of Llama-3-8B, 256 words', layers: 1, vocab: 256 },
  micro: { family: 'llama', name: 'a Llama for emulators', hidden: 32, layers: 2, heads: 4, kvHeads: 2, intermediate: 48, vocab: 64, positions: 64 },
};

/** The shapes that a bench's options name, or its usual ones. @throws Error for a name that no shape has */
export function chosenModels(bench: string, shape: string | null, usual: readonly string[]): readonly (readonly [key: string, shape: ModelShape])[] {
  return (shape === null ? usual : shape.split(',')).map((key) => {
    const found = shapes[key];
    if (found === undefined) throw new Error(`${bench}: --shape must be one of ${Object.keys(shapes).join(', ')} (found ${key})`);
    return [key, found] as const;
  });
}
