// usage: step.child.ts MODEL_FOLDER RANK BATCH TOKENS STEPS CHECKPOINTING. Trains on random tokens and prints one JSON line.
import { readFileSync } from 'node:fs';
import { AdamW, attachLora, loadModel, makeBatch, openDevice, trainStep } from '../src/index.ts';

const [folder = '', rank = '16', batch = '4', tokens = '256', steps = '5', checkpointing = 'none'] = process.argv.slice(2);

/** MiB from a line of /proc/self/status. */
function statusMiB(field: string): number {
  const line = readFileSync('/proc/self/status', 'utf8').split('\n').find((text) => text.startsWith(field));
  return Number(line?.match(/\d+/)?.[0] ?? 0) / 1024;
}

const device = await openDevice('cpu');
const imports = statusMiB('VmRSS');
const model = await loadModel(folder, { device });
const adapter = attachLora(model, { rank: Number(rank), alpha: 2 * Number(rank), targets: 'all-linear' });
const optimizer = new AdamW(adapter.parameters(), { lr: 1e-4 });
let state = 1;
const rows = Array.from({ length: Number(batch) }, () => {
  const inputIds = Int32Array.from({ length: Number(tokens) }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return 3 + (state % (model.facts.vocabSize - 3));
  });
  return { inputIds, labels: inputIds };
});
const data = makeBatch(rows);
const seconds: number[] = [];
const losses: number[] = [];
for (let i = 0; i < Number(steps); i++) {
  const start = performance.now();
  const result = await trainStep(model, optimizer, data, { clip: 1, checkpointing: checkpointing as 'none' | 'blocks' });
  seconds.push((performance.now() - start) / 1000);
  losses.push(result.loss);
}
const stats = device.stats();
console.log(JSON.stringify({
  who: `lowrank${checkpointing === 'blocks' ? ', checkpointed' : ''}`, seconds, losses, importsMiB: imports, peakMiB: statusMiB('VmHWM'),
  anonymousMiB: statusMiB('RssAnon'), fileMiB: statusMiB('RssFile'), poolPeakMiB: stats.peakBytes / 2 ** 20,
}));
device.close();
