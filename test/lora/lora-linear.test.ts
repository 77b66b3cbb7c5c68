import { describe, expect, test } from 'vitest';
import { LoraLinear, type LoraLinearOptions } from '../../src/lora/lora-linear.ts';
import { crossEntropyInplace } from '../../src/ops/cross_entropy.ts';
import { AdamW } from '../../src/optim/adamw.ts';
import { scope } from '../../src/scope.ts';
import { Tape } from '../../src/tape.ts';
import type { Tensor } from '../../src/tensor.ts';
import { onCpu } from '../on-cpu.ts';
import { normals, worst } from '../reference/finite-difference.ts';

const cpu = onCpu();
const [T, K, N, r] = [5, 7, 9, 3];
const random = (count: number, seed: number): Float32Array => Float32Array.from(normals(count, seed));

/** y = x W0ᵀ + bias + scale (x Aᵀ) Bᵀ in f64. */
function expected({ x, w, a, b, bias, scale }: Record<'x' | 'w' | 'a' | 'b' | 'bias', Float32Array> & { scale: number }): Float64Array {
  const y = new Float64Array(T * N);
  for (let t = 0; t < T; t++) {
    for (let n = 0; n < N; n++) {
      let sum = bias[n]!;
      for (let k = 0; k < K; k++) sum += x[t * K + k]! * w[n * K + k]!;
      for (let i = 0; i < r; i++) for (let k = 0; k < K; k++) sum += scale * x[t * K + k]! * a[i * K + k]! * b[n * r + i]!;
      y[t * N + n] = sum;
    }
  }
  return y;
}

test.each<[string, LoraLinearOptions]>([['alpha / rank', {}], ['alpha / √rank', { useRslora: true }]])('LoraLinear: y is the formula, with %s', async (_, options) => {
  const [x, w, a, b, bias] = [random(T * K, 1), random(N * K, 2), random(r * K, 3), random(N * r, 4), random(N, 5)];
  const [xs, biases] = [cpu.device.tensor(x, [T, K]), cpu.device.tensor(bias)];
  using layer = new LoraLinear(w, { device: cpu.device, inFeatures: K, rank: r, alpha: 4, bias: biases, ...options });
  layer.a.upload(a);
  layer.b.upload(b);
  using y = layer.forward(xs);
  const scale = 4 / (options.useRslora ? Math.sqrt(r) : r);
  expect(layer.scale).toBe(scale);
  expect(worst(await y.data(), expected({ x, w, a, b, bias, scale }))).toBeLessThan(1e-5);
  using merged = layer.merge();
  const none = new Float32Array(N);
  using plain = new LoraLinear(merged, { rank: r });
  using z = plain.forward(xs);
  expect(worst(await z.data(), expected({ x, w, a, b, bias: none, scale }))).toBeLessThan(1e-5);
  [xs, biases].forEach((tensor) => tensor.dispose());
});

// The example of its doc comment.
test('LoraLinear: a script without a model trains one over its own W0, and W0 stays as it was', async () => {
  using w0 = cpu.device.tensor(new Float32Array(6 * 4).fill(0.1), [6, 4]);
  using layer = new LoraLinear(w0, { rank: 2, alpha: 4 });
  using optimizer = new AdamW(layer.parameters(), { lr: 0.05 });
  using x = cpu.device.tensor(Float32Array.from({ length: 12 }, (_, i) => Math.sin(i)), [3, 4]);
  using targets = cpu.device.tensor(Int32Array.of(0, 5, 2));
  using loss = cpu.device.empty([1]);
  layer.mode = 'train';
  const losses: number[] = [];
  for (let step = 0; step < 50; step++) {
    layer.parameters().zeroGradients();
    scope(() => {
      using tape = new Tape();
      tape.record(() => crossEntropyInplace(layer.forward(x), { targets, loss, scale: 1 / 3 }));
      tape.backward(loss, cpu.device.empty([1]));
    });
    optimizer.step({ losses: loss, clip: 1 });
    losses.push((await loss.data())[0]! / 3);
  }
  expect(losses[0]).toBeCloseTo(Math.log(6), 1);
  expect(losses.at(-1)).toBeLessThan(0.1);
  expect(new Set(await w0.data())).toEqual(new Set([Math.fround(0.1)]));
});

describe('LoraLinear: gradients with dropout agree with differences, the mask being the same each time', () => {
  test.each([0, 0.4])('p = %d', async (dropout) => {
    const [w, parameters, dy] = [random(N * K, 2), random(r * (K + N), 3), random(T * N, 4)];
    using x = cpu.device.tensor(random(T * K, 1), [T, K]);
    using layer = new LoraLinear(w, { device: cpu.device, inFeatures: K, rank: r, alpha: 2, dropout, seed: 11 });
    layer.mode = 'train';
    layer.dropoutStep = 3;
    const output = async (values: Float32Array): Promise<Float32Array> => {
      layer.parameters().parameters.upload(values);
      using y = layer.forward(x);
      return y.data();
    };
    const objective = async (values: Float32Array): Promise<number> => (await output(values)).reduce((sum, y, i) => sum + y * dy[i]!, 0);
    const slopes: number[] = [];
    const h = 0.05; // bilinear in A and B: central differences are exact but for rounding
    for (let i = 0; i < parameters.length; i++) {
      const moved = (by: number): Float32Array => parameters.map((p, j) => (i === j ? p + by : p));
      slopes.push(((await objective(moved(h))) - (await objective(moved(-h)))) / (2 * h));
    }
    await output(parameters);
    layer.parameters().zeroGradients();
    scope(() => {
      using tape = new Tape();
      tape.backward(tape.record(() => layer.forward(x)), cpu.device.tensor(dy, [T, N]));
    });
    expect(worst(await layer.parameters().gradients.data(), slopes)).toBeLessThan(2e-4);
    if (dropout > 0) {
      layer.mode = 'eval';
      expect(worst(await output(parameters), await output(parameters))).toBe(0);
    }
  });
});

test.each<[string, (w: Float32Array) => Tensor | Float32Array, LoraLinearOptions]>([
  ['an array without a device', (w) => w, { inFeatures: K }],
  ['an array that rows don\'t divide', (w) => w, { inFeatures: K + 1 }],
  ['rank 0', (w) => w, { inFeatures: K, rank: 0 }],
])('LoraLinear: %s is refused', (name, w0, options) => {
  const device = name.includes('without') ? {} : { device: cpu.device };
  expect(() => new LoraLinear(w0(random(N * K, 1)), { ...device, ...options })).toThrow(expect.objectContaining({ code: 'ERR_ARGUMENT' }));
});

test('LoraLinear: two that differ in name start with different A\'s', async () => {
  using w0 = cpu.device.tensor(random(N * K, 1), [N, K]);
  using one = new LoraLinear(w0, { rank: r, name: 'one' });
  using two = new LoraLinear(w0, { rank: r, name: 'two' });
  expect(await one.a.data()).not.toEqual(await two.a.data());
});
