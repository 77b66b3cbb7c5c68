// usage: large.child.ts MODEL_FOLDER TOKENS STEPS. Trains r16 on all linears, checkpointed, one sequence of random tokens; prints a JSON line
// per step and one at the end.
import { readFileSync } from 'node:fs';
import { AdamW, attachLora, loadModel, makeBatch, openDevice, trainStep } from '../src/index.ts';
import { estimateMemory } from '../src/train/memory-estimate.ts';

const [folder = '', tokens = '128', steps = '2'] = process.argv.slice(2);

/** MiB from a line of /proc/self/status. */
function statusMiB(field: string): number {
  const line = readFileSync('/proc/self/status', 'utf8').split('\n').find((text) => text.startsWith(`${field}:`));
  return Math.round(Number(line?.match(/\d+/)?.[0] ?? 0) / 1024);
}

/** Bytes that came from the disk for this process so far. */
function readBytes(): number {
  return Number(/^read_bytes: (\d+)/m.exec(readFileSync('/proc/self/io', 'utf8'))?.[1] ?? 0);
}

let peakAnonymous = 0;
function sample(): void {
  peakAnonymous = Math.max(peakAnonymous, statusMiB('RssAnon'));
}
setInterval(sample, 50).unref();

const device = await openDevice('cpu');
sample();
const importsMiB = peakAnonymous;
const model = await loadModel(folder, { device });
const adapter = attachLora(model, { rank: 16, alpha: 32, targets: 'all-linear' });
const optimizer = new AdamW(adapter.parameters(), { lr: 1e-4 });
const estimate = estimateMemory(model, adapter, { tokens: Number(tokens), checkpointing: 'blocks' });
const inputIds = Int32Array.from({ length: Number(tokens) }, (_, i) => 3 + ((i * 7919) % (model.facts.vocabSize - 3)));
const batch = makeBatch([{ inputIds, labels: inputIds }]);

for (let step = 0; step < Number(steps); step++) {
  const [start, before] = [performance.now(), readBytes()];
  const { loss, gradNorm } = await trainStep(model, optimizer, batch, { clip: 1, checkpointing: 'blocks' });
  sample();
  const seconds = (performance.now() - start) / 1000;
  const cpu = process.cpuUsage();
  console.log(JSON.stringify({ step, seconds, loss, gradNorm, readBytes: readBytes() - before, anonymousMiB: statusMiB('RssAnon'), fileMiB: statusMiB('RssFile'), user: cpu.user / 1e6, system: cpu.system / 1e6 }));
}
const { peakBytes, reservedBytes } = device.stats();
console.log(JSON.stringify({
  weightsMiB: Math.round(estimate.weights / 2 ** 20), estimateMiB: Math.round(estimate.total / 2 ** 20), poolPeakMiB: Math.round(peakBytes / 2 ** 20),
  reservedMiB: Math.round(reservedBytes / 2 ** 20), importsMiB, peakAnonymousMiB: peakAnonymous, peakMiB: statusMiB('VmHWM'),
}));
device.close();
