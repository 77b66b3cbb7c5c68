import { describe, expect, it } from 'vitest';
import type { Device } from '../../src/device.ts';
import { loraLinear } from '../../src/ops/lora_linear.ts';
import { Tape } from '../../src/tape.ts';
import { onCpu } from '../on-cpu.ts';

// q, k and v of a model of hidden size 2048 with 8 of 32 key heads, rank 16 each.
const [T, K, r] = [64, 2048, 16];
const out = [2048, 512, 512];

function bytesPerElement(device: Device, p: number): { tape: number; live: number } {
  const N = out.reduce((sum, n) => sum + n, 0);
  const matrices = out.map((n) => device.empty([n, K], 'bf16'));
  using weight = device.weight(matrices);
  using a = device.empty([3 * r, K]);
  using b = device.empty([N * r]);
  using da = device.empty([3 * r, K]);
  using db = device.empty([N * r]);
  const lora = { a, b, da, db, ranks: [r, r, r], scales: [2, 2, 2], dropout: { p, seed: 1, layers: [0, 1, 2], step: 0 } };
  using tape = new Tape();
  const before = device.stats().liveBytes;
  const y = tape.record(() => loraLinear(device.empty([T, K]), { weight, bias: null }, lora));
  y.dispose();
  const live = device.stats().liveBytes - before;
  for (const matrix of matrices) matrix.dispose();
  return { tape: tape.savedBytes / (T * K), live: live / (T * K) };
}

describe('what q, k and v keep for the backward pass', () => {
  const cpu = onCpu();
  it.each([0, 0.1])('is x once and u, nothing else, at dropout %s', async (p) => {
    const { tape, live } = bytesPerElement(cpu.device, p);
    await cpu.device.fence();
    console.log(`saved bytes per element of x at dropout ${p}: ${tape}`);
    expect(tape).toBe(4 + (3 * r * 4) / K);
    expect(tape).toBeLessThan(4.1);
    expect(live).toBe(tape);
  });
});
