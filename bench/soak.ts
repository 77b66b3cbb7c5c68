// Does memory stay flat? Many steps of a tiny model, resident memory along the way.
// usage: node --expose-gc --import tsx bench/soak.ts MODEL_FOLDER [STEPS]
import { AdamW, attachLora, loadModel, makeBatch, openDevice, trainStep } from '../src/index.ts';

const [folder = 'test/golden/families/llama_untied', steps = '10000'] = process.argv.slice(2);

const mib = (bytes: number): number => Math.round((bytes / 2 ** 20) * 10) / 10;

const device = await openDevice('cpu');
const model = await loadModel(folder, { device });
const adapter = attachLora(model, { rank: 4, alpha: 8, targets: 'all-linear', dropout: 0.1 });
const optimizer = new AdamW(adapter.parameters(), { lr: 1e-4 });
const data = [7, 12, 5].map((length) => {
  const inputIds = Int32Array.from({ length }, (_, i) => 3 + ((i * 13) % 80));
  return makeBatch([{ inputIds, labels: inputIds }]);
});
for (let step = 1; step <= Number(steps); step++) {
  await trainStep(model, optimizer, data[step % data.length] ?? [], { clip: 1, dropoutStep: step });
  if (step % (Number(steps) / 10) !== 0 && step !== 100) continue;
  globalThis.gc?.();
  const { tensors, liveBytes, reservedBytes } = device.stats();
  console.log(JSON.stringify({ step, residentMiB: mib(process.memoryUsage.rss()), heapMiB: mib(process.memoryUsage().heapUsed), tensors, liveBytes, reservedMiB: mib(reservedBytes) }));
}
device.close();
