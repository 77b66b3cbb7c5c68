// Queues seconds of work on a device, then ends in the way the first argument says. Run by ending.test.ts.
import { createRequire } from 'node:module';
import { isMainThread, Worker, workerData } from 'node:worker_threads';

const native = createRequire(import.meta.url)('../../build/Release/lowrank.node');

function queueWork() {
  const device = native.open('cpu', 0, 0, 0, 0, 0);
  const [rows, cols] = [4096, 1024];
  const [x, y, r, w] = [[rows, cols], [rows, cols], [rows], [cols]].map((dims) => native.alloc(device, 0, ...dims));
  native.upload(x, new Float32Array(rows * cols).fill(1));
  native.upload(w, new Float32Array(cols).fill(1));
  for (let i = 0; i < 5000; i++) native.ops.rms_norm(y, r, x, w, 1e-5);
  return native.fence(device);
}

const how = isMainThread ? process.argv[2] : workerData;
if (how === 'exit') {
  queueWork();
  setTimeout(() => process.exit(0), 20);
} else if (how === 'terminate') {
  const worker = new Worker(new URL(import.meta.url), { workerData: 'work' });
  worker.once('message', () => setTimeout(async () => process.exit((await worker.terminate()) === 1 ? 0 : 3), 20));
} else if (how === 'work') {
  const { parentPort } = await import('node:worker_threads');
  queueWork();
  parentPort.postMessage('queued');
} else if (how === 'idle') {
  native.open('cpu', 0, 0, 0, 0, 0); // and nothing more: Node must end by itself
}
