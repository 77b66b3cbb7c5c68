import { type Party, spread, takeTurns } from '../src/cli/turns.ts';
import { AdamW, attachLora, type Device, loadModel, makeBatch, trainStep } from '../src/index.ts';
import type { Point } from './fit.ts';
import { withRandomModel } from './random-model.ts';
import type { ModelShape } from './shapes.ts';

// A small vocabulary, so that the loss hides nothing of the layers.
const shape: ModelShape = { family: 'llama', name: 'layers', hidden: 256, layers: 1, heads: 4, kvHeads: 4, intermediate: 704, vocab: 512, positions: 512 };

/** Median milliseconds of a training step (r16 on all linears, 2×256 tokens) of models with so many layers. */
export async function stepTimesByLayers(device: Device, counts: readonly number[], rounds: number): Promise<Point[]> {
  const made: { dispose(): void }[] = [];
  try {
    const parties: Record<string, Party> = {};
    for (const layers of counts) parties[`at ${layers}`] = await stepParty(device, layers, made);
    const samples = await takeTurns(parties, { rounds });
    return counts.map((x) => ({ x, y: spread(samples[`at ${x}`] ?? []).median }));
  } finally {
    for (const owner of made.reverse()) owner.dispose();
  }
}

async function stepParty(device: Device, layers: number, made: { dispose(): void }[]): Promise<Party> {
  const model = await withRandomModel({ ...shape, layers }, (folder) => loadModel(folder, { device }));
  const adapter = attachLora(model, { rank: 16, alpha: 32, targets: 'all-linear' });
  const optimizer = new AdamW(adapter.parameters(), { lr: 1e-4 });
  made.push(model, adapter, optimizer);
  const inputIds = Int32Array.from({ length: 256 }, (_, i) => (i * 37) % shape.vocab);
  const batch = makeBatch([{ inputIds, labels: inputIds }, { inputIds, labels: inputIds }]);
  return {
    async sample(repeats) {
      const start = performance.now();
      for (let i = 0; i < repeats; i++) {
        const { loss } = await trainStep(model, optimizer, batch);
        if (!(loss < 1.1 * Math.log(shape.vocab))) throw new Error(`scaling: the loss of ${layers} layers must be about ${Math.log(shape.vocab)} (found ${loss})`);
      }
      return (performance.now() - start) / repeats;
    },
  };
}
