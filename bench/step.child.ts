// usage: step.child.ts MODEL_FOLDER RANK BATCH TOKENS none|blocks highest|medium DEVICE. Our side of bench/step.ts and bench/memory.ts:
// answers each line with one of JSON, "load" (then the model is there), "step" (one training step on random tokens) and "memory".
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import type { MatmulPrecision } from '../src/device.ts';
import { AdamW, attachLora, loadModel, makeBatch, openDevice, trainStep } from '../src/index.ts';

const [folder = '', rank = '16', batch = '4', tokens = '256', checkpointing = 'none', precision = 'highest', deviceName = 'cpu'] = process.argv.slice(2);

/** MiB from a line of /proc/self/status. */
function statusMiB(field: string): number {
  const line = readFileSync('/proc/self/status', 'utf8').split('\n').find((text) => text.startsWith(field));
  return Number(line?.match(/\d+/)?.[0] ?? 0) / 1024;
}

/** The same token ids as in peers/step.py, so that the first loss can be compared. */
function randomRows(vocab: number): { inputIds: Int32Array; labels: Int32Array }[] {
  let state = 1;
  return Array.from({ length: Number(batch) }, () => {
    const inputIds = Int32Array.from({ length: Number(tokens) }, () => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      return 3 + (state % (vocab - 3));
    });
    return { inputIds, labels: inputIds };
  });
}

await using device = await openDevice(deviceName, { matmulPrecision: precision as MatmulPrecision });
const importsMiB = statusMiB('VmRSS');

async function load() {
  const model = await loadModel(folder, { device });
  const adapter = attachLora(model, { rank: Number(rank), alpha: 2 * Number(rank), targets: 'all-linear' });
  const optimizer = new AdamW(adapter.parameters(), { lr: 1e-4 });
  return { model, optimizer, data: makeBatch(randomRows(model.facts.vocabSize)), savedBytes: 0 };
}

let loaded: Awaited<ReturnType<typeof load>> | null = null;

async function step() {
  loaded ??= await load();
  const { model, optimizer, data } = loaded;
  const start = performance.now();
  const { loss, savedBytes } = await trainStep(model, optimizer, data, { clip: 1, checkpointing: checkpointing as 'none' | 'blocks' });
  loaded.savedBytes = savedBytes;
  return { ms: performance.now() - start, loss };
}

function memory() {
  const { peakBytes, reservedBytes, kernelBytes } = device.stats();
  return {
    importsMiB, peakMiB: statusMiB('VmHWM'), anonymousMiB: statusMiB('RssAnon'), fileMiB: statusMiB('RssFile'),
    // PyTorch's figures have its kernels' scratch memory in them too.
    devicePeakMiB: (peakBytes + kernelBytes) / 2 ** 20, deviceReservedMiB: (reservedBytes + kernelBytes) / 2 ** 20, savedMiB: (loaded?.savedBytes ?? 0) / 2 ** 20,
  };
}

for await (const line of createInterface({ input: process.stdin })) {
  if (line === 'load') loaded = await load();
  console.log(JSON.stringify(line === 'step' ? await step() : memory()));
}
