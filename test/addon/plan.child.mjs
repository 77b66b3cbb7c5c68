// Two products of one shape and one of another, for levers.test.ts, which reads what LOWRANK_PLAN prints of them.
import { createRequire } from 'node:module';

const native = createRequire(import.meta.url)('../../build/Release/lowrank.node');
const device = native.open('cpu', 0, 0, 0, 0, 0);
const f32 = 0;
for (const rows of [40, 40, 50]) {
  const [x, stored, y] = [native.alloc(device, f32, rows, 24), native.alloc(device, f32, 16, 24), native.alloc(device, f32, rows, 16)];
  native.upload(x, new Float32Array(rows * 24));
  native.upload(stored, new Float32Array(16 * 24));
  native.ops.linear(y, x, native.weight(device, 0, -1, stored), 0, 0);
}
await native.fence(device);
native.close(device);
