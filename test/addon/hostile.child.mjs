// Calls every function of the addon and every op with arguments drawn at random: wrong sorts, released handles, read-only and empty
// tensors, impossible numbers. Whatever happens must be an error with a code. Prints what was called; dying is the failure that
// hostile.test.ts looks for. Arguments: seed, calls.
import { rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import path from 'node:path';

const native = createRequire(import.meta.url)('../../build/Release/lowrank.node');
const [seed, calls] = process.argv.slice(2).map(Number);
const own = new URL(import.meta.url).pathname;
const target = path.join(tmpdir(), `lowrank-hostile-${process.pid}`);

let state = seed;
const draw = (n) => {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0; // Numerical Recipes' generator: the upper bits are good enough
  return Math.floor((state / 2 ** 32) * n);
};
const pick = (list) => list[draw(list.length)];
const some = (n, make) => Array.from({ length: n }, make);

const devices = [native.open('cpu', 0, 0, 0, 0, 0), native.open('cpu', 0, 0, 0, 0, 0)];
const handles = [];
const numbers = [0, 1, 2, 3, 4, 6, 8, -1, 0.5, -0, NaN, Infinity, -Infinity, 2 ** 31, 2 ** 32, 2 ** 53, 2 ** 63 - 1024, 1e15, 1e300];
const dims = () => some(draw(6), () => pick([0, 1, 1, 2, 2, 3, 4, 6, 8, 12, 24, 96, -1, NaN, 2 ** 40, 1.5]));
const handle = () => (draw(12) === 0 ? pick(numbers) : pick(handles.slice(-40)) ?? 0);
const detached = () => {
  const array = new Float32Array(4);
  structuredClone(array, { transfer: [array.buffer] });
  return array;
};
const closesDevice = { valueOf: () => native.close(devices[0]), toString: () => native.close(devices[0]) };
const oddities = [undefined, null, '', 'cpu', 'a\0b', own, target, {}, [], [0], [{}], () => 0, Symbol('x'), 1n, true, closesDevice, new DataView(new ArrayBuffer(8)),
  new Proxy([], {}), new Uint8Array(3), new Float32Array(4), new Float64Array(2), new Int32Array(new SharedArrayBuffer(16))];
const anything = () => pick([handle, handle, () => pick(numbers), () => pick(oddities), detached, () => pick(devices)])();

// Calls that fit often enough to get past the first check.
const likely = {
  open: () => ['cpu', 0],
  alloc: () => [pick(devices), draw(5), ...dims()],
  view: () => [handle(), pick([0, 0, 1, 2]), ...dims()],
  map: () => [own],
  mapTensor: () => [pick(devices), handle(), draw(5), draw(64), ...dims()],
  weight: () => [pick(devices), draw(2), pick([-1, 1, 2, 0, 9]), ...some(1 + draw(3), handle)],
  upload: () => [handle(), pick([new Float32Array(4), new Int32Array([0, 1, 2, 4]), new Int32Array([0, 4]), new Uint8Array(4)])],
  writeFile: () => [pick(devices), target, new Uint8Array(2), some(draw(3), handle)],
};

// What each op takes: t f32, i i32, o f32 or nothing, w a weight, n a whole number, x any number.
const heads = 'nn', gate = 'ttx', parts = 'nnnxxxnnnxnnn';
const signatures = {
  copy: 'tt', cast: 'tt', fill: 'tx', add: 'ttt', embedding: 'titoo', linear: 'ttwoo', linear_grad: 'ttw', lora_linear: `tttwoott${parts}`,
  lora_linear_grad: `otttttwtt${parts}`, lora_merge: 'ttttxn', rms_norm: 'ttttx', rms_norm_grad: 'ttttto', layer_norm: 'ttttttx',
  layer_norm_grad: 'tttttto', qk_norm: `ttttt${heads}x`, qk_norm_grad: `tttttt${heads}`, rope_inplace: `tit${heads}n`,
  attention: `ttti${heads}nx`, attention_grad: `ttttti${heads}nx`, attention_cache: `tttt${heads}nnx`, swiglu: 'tt', swiglu_grad: 'ttt',
  swiglu_then_lora_linear: `ttttwoott${parts}`, swiglu_grad_then_lora_linear_grad: `otttttttwtt${parts}`,
  gelu: 'ttn', gelu_grad: 'tttn', cross_entropy_inplace: 'ttix', linear_cross_entropy: 'totwix', sum_squares: 'tt',
  adamw: `tttt${gate}xxxxxxx`, sgd: `tot${gate}xxxn`,
};
const names = Object.keys(native).filter((name) => name !== 'ops');
const counts = { done: 0, refused: 0, codeless: [], ops: {} };

function attempt(name, call) {
  try {
    const result = call();
    if (typeof result === 'number' && ['alloc', 'view', 'map', 'mapTensor', 'weight'].includes(name)) handles.push(result);
    if (result instanceof Promise) result.catch(() => undefined);
    counts.done++;
    if (name in signatures) counts.ops[name] = (counts.ops[name] ?? 0) + 1;
  } catch (error) {
    counts.refused++;
    if (typeof error.code !== 'string') counts.codeless.push(`${name}: ${error.message}`);
  }
}

function callFunction() {
  const name = pick(names);
  const alive = devices.length < 40;
  if ((name === 'close' && draw(50) !== 0) || (name === 'open' && !alive)) return;
  const given = likely[name] !== undefined && draw(4) !== 0 ? likely[name]() : some(draw(6), anything);
  attempt(name, () => {
    const result = native[name](...given);
    if (name === 'open') devices[draw(2)] = result;
    return result;
  });
}

// Tensors so small that shapes often fit by chance, and then the kernel runs. Indices are in and out of range.
const wild = (list) => (draw(30) === 0 ? anything() : pick(list));
const small = () => some(1 + draw(3), () => pick([0, 1, 1, 2, 2, 3, 6]));
let stock = { t: [], i: [], w: [] };
function restock() {
  const device = pick(devices);
  const indices = () => {
    const dims = small();
    const tensor = native.alloc(device, 3, ...dims);
    native.upload(tensor, Int32Array.from({ length: dims.reduce((n, dim) => n * dim, 1) }, (_, at) => pick([0, at, at, 1, -100, 7])));
    return tensor;
  };
  try {
    for (const old of [...stock.t, ...stock.i, ...stock.w]) native.release(old);
    stock = { t: some(14, () => native.alloc(device, 0, ...small())), i: some(5, indices), w: [] };
    for (const tensor of stock.t) native.ops.fill(tensor, pick([0, 1, -2, NaN]));
    for (let n = 0; n < 4; n++) stock.w.push(native.weight(device, draw(2), pick([-1, 1, 2]), ...some(1 + draw(3), () => native.alloc(device, draw(3), 1 + draw(3), 2))));
  } catch {
    devices[devices.indexOf(device)] = native.open('cpu', 0, 0, 0, 0, 0);
  }
}

function callOp() {
  const name = pick(Object.keys(native.ops));
  const lists = { t: stock.t, i: stock.i, o: [0, ...stock.t], w: stock.w, n: [0, 1, 1, 2, 2 ** 53], x: [1, -1, 0, 0.5, NaN] };
  attempt(name, () => native.ops[name](...[...signatures[name]].map((kind) => wild(lists[kind]))));
}

for (let i = 0; i < calls; i++) {
  if (i % 200 === 0) {
    for (const id of devices) attempt('fence', () => native.fence(id));
    for (const old of handles.splice(0, Math.max(0, handles.length - 60))) if (draw(2) === 0) native.release(old);
    await new Promise((resolve) => setImmediate(resolve));
  }
  if (i % 100 === 0) restock();
  if (draw(3) === 0) callFunction();
  else callOp();
}
for (let id = 0; id < 100; id++) native.close(id); // what is queued is dropped, so that nothing writes the file again
rmSync(target, { force: true });
console.log(JSON.stringify(counts));
