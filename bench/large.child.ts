// usage: large.child.ts MODEL_FOLDER TOKENS STEPS. Trains r16 on all linears, checkpointed, on one sequence; prints a JSON line per step and
// one at the end.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { AdamW, attachLora, loadModel, makeBatch, openDevice, trainStep } from '../src/index.ts';
import { estimateMemory } from '../src/train/memory-estimate.ts';

export interface LargeStep {
  readonly step: number;
  readonly seconds: number;
  readonly loss: number;
  readonly gradNorm: number;
  /** From the disk, in this step. */
  readonly readBytes: number;
}

export interface LargeEnd {
  readonly weightsMiB: number;
  readonly estimateMiB: number;
  readonly poolPeakMiB: number;
  readonly importsMiB: number;
  readonly peakAnonymousMiB: number;
  readonly peakMiB: number;
}

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

// The kernel keeps no peak of anonymous memory.
let peakAnonymousMiB = 0;
function sample(): void {
  peakAnonymousMiB = Math.max(peakAnonymousMiB, statusMiB('RssAnon'));
}
setInterval(sample, 20).unref();

const device = await openDevice('cpu');
sample();
const importsMiB = peakAnonymousMiB;
const model = await loadModel(folder, { device });
const adapter = attachLora(model, { rank: 16, alpha: 32, targets: 'all-linear' });
const optimizer = new AdamW(adapter.parameters(), { lr: 1e-4 });
const estimate = estimateMemory(model, adapter, { tokens: Number(tokens), checkpointing: 'blocks' });
const inputIds = Int32Array.from({ length: Number(tokens) }, (_, i) => 3 + ((i * 7919) % (model.facts.vocabSize - 3)));
const batch = makeBatch([{ inputIds, labels: inputIds }]);

for (let step = 0; step < Number(steps); step++) {
  const [start, before] = [performance.now(), readBytes()];
  const { loss, gradNorm } = await trainStep(model, optimizer, batch, { clip: 1, checkpointing: 'blocks' });
  const line: LargeStep = { step, seconds: (performance.now() - start) / 1000, loss, gradNorm, readBytes: readBytes() - before };
  sample();
  console.log(JSON.stringify(line));
}
const out = mkdtempSync(path.join(tmpdir(), 'lowrank-large-'));
await adapter.save(out);
rmSync(out, { recursive: true });
sample();
const mebibytes = (bytes: number): number => Math.round(bytes / 2 ** 20);
const end: LargeEnd = {
  weightsMiB: mebibytes(estimate.weights), estimateMiB: mebibytes(estimate.total), poolPeakMiB: mebibytes(device.stats().peakBytes),
  importsMiB, peakAnonymousMiB, peakMiB: statusMiB('VmHWM'),
};
console.log(JSON.stringify(end));
device.close();
