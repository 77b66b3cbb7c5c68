// The same in two worker threads at once; a third is ended in the middle of it.
import { Worker } from 'node:worker_threads';

const esm = new URL('./esm.mjs', import.meta.url);
const ended = (worker) => new Promise((resolve, reject) => worker.on('error', reject).on('exit', (code) => (code === 0 ? resolve() : reject(new Error(`exit code ${code}`)))));
const doomed = new Worker(esm, { stdout: true });
setTimeout(() => void doomed.terminate(), 300);
await Promise.all([new Worker(esm), new Worker(esm)].map(ended));
