// usage: step-once.ts DEVICE [SHAPE [T]]. A training step, op by op: attention, norms, the loss and the optimizer beside the linears. For a
// profiler, so no step comes before.
import { AdamW, attachLora, loadModel, makeBatch, openDevice, trainStep } from '../../src/index.ts';
import { withRandomModel } from '../random-model.ts';
import { shapes, type ModelShape } from '../shapes.ts';

const [name = 'cuda', shape = 'llama8b-layer', tokens = '8192'] = process.argv.slice(2);
await using device = await openDevice(name, { activations: 'bf16', graphs: false });
await withRandomModel(shapes[shape] as ModelShape, async (folder) => {
  const model = await loadModel(folder, { device });
  const adapter = attachLora(model, { rank: 16, alpha: 32, targets: 'all-linear', seed: 1 });
  const optimizer = new AdamW(adapter.parameters(), { lr: 1e-4 });
  const inputIds = Int32Array.from({ length: Math.ceil(Number(tokens) / 4) }, (_, i) => (7 * i + 3) % model.facts.vocabSize);
  const { loss } = await trainStep(model, optimizer, makeBatch(Array.from({ length: 4 }, () => ({ inputIds, labels: inputIds }))), { clip: 1 });
  console.log(`a step of ${4 * inputIds.length} tokens: loss ${loss.toFixed(4)}`);
});
