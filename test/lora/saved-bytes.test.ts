import { describe, expect, it } from 'vitest';
import type { Device } from '../../src/device.ts';
import { gatedMlp } from '../../src/ops/gated_mlp.ts';
import { linear } from '../../src/ops/linear.ts';
import { loraLinear, type LoraOperands } from '../../src/ops/lora_linear.ts';
import { swiglu } from '../../src/ops/swiglu.ts';
import { Tape } from '../../src/tape.ts';
import type { Tensor } from '../../src/tensor.ts';
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

describe('what a gated MLP keeps for the backward pass', () => {
  const cpu = onCpu();

  it('is gate | up and u, as of its ops one by one: h is made again', async () => {
    const { device } = cpu;
    const [C, F] = [96, 256];
    const numbers = (n: number): Float32Array => Float32Array.from({ length: n }, (_, i) => Math.sin(i * 1.7) / 8);
    using matrix = device.tensor(numbers(F * C), [F, C]);
    using turned = device.tensor(numbers(C * F), [C, F]);
    using joined = device.weight([matrix, matrix]);
    using weight = device.weight([turned]);
    using a = device.tensor(numbers(r * F), [r, F]);
    using b = device.tensor(numbers(C * r));
    using x = device.tensor(numbers(T * C), [T, C]);
    const [gateUp, down] = [{ weight: joined, bias: null }, { weight, bias: null }];

    const gradientsBy = async (forward: (lora: LoraOperands) => Tensor): Promise<{ bytes: number; gradients: Float32Array[] }> => {
      using da = device.tensor(new Float32Array(r * F), [r, F]);
      using db = device.tensor(new Float32Array(C * r));
      using tape = new Tape();
      tape.watch(x);
      using y = tape.record(() => forward({ a, b, da, db, ranks: [r], scales: [2], dropout: { p: 0, seed: 1, layers: [0], step: 0 } }));
      const bytes = tape.savedBytes;
      using dx = tape.backward(y, device.tensor(numbers(T * C), [T, C])).get(x)!;
      return { bytes, gradients: await Promise.all([dx, da, db].map((each) => each.data())) };
    };
    const once = await gradientsBy((lora) => gatedMlp(x, { ...gateUp, lora: null }, { ...down, lora }));
    const apart = await gradientsBy((lora) => loraLinear(swiglu(linear(x, gateUp)), down, lora));
    expect(once.bytes).toBe(4 * T * (2 * F + r));
    expect(apart.bytes).toBe(once.bytes);
    expect(once.gradients).toEqual(apart.gradients);
  });
});
