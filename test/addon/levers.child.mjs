// One op that makes a NaN and one that fails, for levers.test.ts: prints what was thrown where.
import { createRequire } from 'node:module';

const native = createRequire(import.meta.url)('../../build/Release/lowrank.node');
// A second argument: on the emulator, with bf16 activations in rows that have spare columns.
const device = native.open(process.argv[2] ?? 'cpu', 0, 0, 0, 0, 0);
const tensor = (data) => {
  const handle = native.alloc(device, data instanceof Int32Array ? 3 : 0, data.length);
  native.upload(handle, data);
  return handle;
};
const [x, y] = [tensor(Float32Array.of(1, NaN, 3)), tensor(new Float32Array(3))];
const [ids, table, rows] = [tensor(Int32Array.of(5)), native.alloc(device, 0, 2, 3), native.alloc(device, 0, 1, 3)];
const said = [];

async function attempt(name, call) {
  try {
    call();
    await native.fence(device);
    said.push(`${name}: fine`);
  } catch (error) {
    said.push(`${name}: ${error.code} ${error.message}`);
  }
}
function thrownAtCall(call) {
  try {
    call();
    return false;
  } catch {
    return true;
  }
}

await attempt('add', () => native.ops.add(y, x, x));
if (process.argv[2] !== undefined) {
  const half = native.allocBordered(device, 2, 2, 2);
  native.upload(half, Uint16Array.of(0x3f80, 0x3f80, 0x3f80, 0x7f80)); // 1, 1, 1, infinity
  await attempt('copy in bf16', () => native.ops.copy(half, half));
}
said.push(`embedding throws at the call: ${thrownAtCall(() => native.ops.embedding(rows, ids, table, 0, 0))}`);
await native.fence(device).catch(() => undefined);
native.close(device);
console.log(JSON.stringify(said));
