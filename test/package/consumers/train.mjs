// What a program does with an installed lowrank: fine-tunes the model that comes with it for some steps, saves, loads again.
import path from 'node:path';

export async function train(lowrank, demo) {
  const device = await lowrank.openDevice('cpu', { threads: 2 });
  try {
    const model = await lowrank.loadModel(path.join(demo, 'base'), { device });
    const tokenizer = await lowrank.loadTokenizer(path.join(demo, 'base'));
    const data = await lowrank.loadDataset(path.join(demo, 'data/heldout.jsonl'), { tokenizer, maxLength: 128 });
    const adapter = lowrank.attachLora(model, { rank: 4, alpha: 8, targets: 'all-linear' });
    const optimizer = new lowrank.AdamW(adapter.parameters(), { lr: 4e-3 });
    const losses = [];
    for (const window of lowrank.batches(data, { batchSize: 4, accumulate: 1, seqLength: 128, seed: 1, shuffle: true, packing: 'none' })) {
      losses.push((await lowrank.trainStep(model, optimizer, window.batches)).loss);
      if (losses.length === 8) break;
    }
    await adapter.save(path.resolve(`adapter-${process.pid}`));
    optimizer.dispose();
    adapter.dispose();
    const loaded = await lowrank.loadAdapter(model, path.resolve(`adapter-${process.pid}`));
    loaded.dispose();
    model.dispose();
    return { first: losses[0], last: losses.at(-1), tensors: device.stats().tensors, node: process.version };
  } finally {
    await device.close();
  }
}
