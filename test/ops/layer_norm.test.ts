import { launch } from '../../src/kernel.ts';
import { layerNorm, layerNormGrad } from '../reference/layer_norm.ts';
import { bound, parity } from './parity.ts';

const sizes = [[0, 8], [1, 1], [2, 3], [3, 7], [2, 15], [2, 16], [3, 17], [5, 31], [4, 33], [2, 63], [2, 65], [3, 997], [7, 768], [2, 4096]] as const;
// A row far from zero: its variance must not be lost in the square of its mean.
const cases = sizes.flatMap(([N, C]) => [0, 100].map((offset) => ({ N, C, eps: 1e-5, offset })));

parity('layer_norm', {
  cases,
  halves: 'any rows',
  run(bench, { N, C, eps, offset }) {
    const x = bench.rounded(bench.random(N * C).map((v) => v + offset));
    const [w, b] = [bench.random(C), bench.random(C)];
    const [y, mean, r] = [bench.activationOutput([N, C]), bench.output([N]), bench.output([N])];
    launch('layer_norm', y, mean, r, bench.activation(x, [N, C]), bench.input(w, [C]), bench.input(b, [C]), eps);
    const want = layerNorm({ x, w, b, N, C, eps: Math.fround(eps) });
    // The mean is off by roundings of the largest |x|; centred, scaled and weighed, that is what y is off by.
    const sizes = largest(x, N, C);
    const spread = want.y.map((_, i) => {
      const [n, c] = [Math.floor(i / C), i % C];
      const scale = (want.r[n] as number) * (w[c] as number);
      return Math.abs(scale) * (sizes[n] as number) + Math.abs(scale * ((x[i] as number) - (want.mu[n] as number))) + Math.abs(b[c] as number);
    });
    return [
      { name: 'y', got: y, want: want.y, within: bound(C, spread) },
      { name: 'mean', got: mean, want: want.mu, within: bound(C, sizes) },
      // A constant row has variance 0 and r 1/sqrt(eps), but a mean that is off by u|x| makes u^2 x^2 of it.
      { name: 'r', got: r, want: want.r, within: bound(C, want.r.map((v, n) => v + 0.5 * v ** 3 * (2 ** -12 * (sizes[n] as number)) ** 2)) },
    ];
  },
});

parity('layer_norm of a constant row', {
  cases: [{ N: 2, C: 48, eps: 1e-5 }],
  run(bench, { N, C, eps }) {
    const b = bench.random(C);
    const [y, mean, r] = [bench.output([N, C]), bench.output([N]), bench.output([N])];
    launch('layer_norm', y, mean, r, bench.input(new Float64Array(N * C).fill(3), [N, C]), bench.input(bench.random(C), [C]), bench.input(b, [C]), eps);
    const want = Float64Array.from({ length: N * C }, (_, i) => b[i % C] as number);
    return [{ name: 'y', got: y, want, within: () => 0 }];
  },
});

parity('layer_norm_grad', {
  halves: 'any rows',
  cases: cases.flatMap((testCase) => (['none', 'given', 'is dx'] as const).map((carry) => ({ ...testCase, carry }))),
  run(bench, { N, C, eps, offset, carry }) {
    const x = bench.rounded(bench.random(N * C).map((v) => v + offset));
    const [w, b, dy, carried] = [bench.random(C), bench.random(C), bench.randomActivation(N * C), bench.randomActivation(N * C)];
    const kept = layerNorm({ x, w, b, N, C, eps });
    const dx = carry === 'is dx' ? bench.activationInout(carried, [N, C]) : bench.activationOutput([N, C]);
    const given = carry === 'none' ? null : carry === 'is dx' ? dx : bench.activation(carried, [N, C]);
    const [mean, r] = [bench.input(kept.mu, [N]), bench.input(kept.r, [N])];
    launch('layer_norm_grad', dx, bench.activation(dy, [N, C]), bench.activation(x, [N, C]), bench.input(w, [C]), mean, r, given);
    const own = layerNormGrad({ dy, x, w, b, N, C, eps });
    const want = carry === 'none' ? own : own.map((v, i) => v + (carried[i] as number));
    return [{ name: 'dx', got: dx, want, within: bound(C, magnitudes({ dy, x, w, ...kept, N, C, carried })) }];
  },
});

interface Operands {
  readonly dy: Float64Array;
  readonly x: Float64Array;
  readonly w: Float64Array;
  readonly mu: Float64Array;
  readonly r: Float64Array;
  readonly N: number;
  readonly C: number;
  readonly carried: Float64Array;
}

// r (|g| + mean|g| + |z| mean|g z|) + |carry| with g = w dy; |z| counts the mean's own rounding, |x| r.
function magnitudes({ dy, x, w, mu, r, N, C, carried }: Operands): Float64Array {
  const result = new Float64Array(N * C);
  for (let n = 0; n < N; n++) {
    const rn = r[n] as number;
    const g = (c: number): number => Math.abs((w[c] as number) * (dy[n * C + c] as number));
    const z = (c: number): number => (Math.abs((x[n * C + c] as number) - (mu[n] as number)) + Math.abs(mu[n] as number)) * rn;
    let [meanG, meanGz] = [0, 0];
    for (let c = 0; c < C; c++) {
      meanG += g(c) / C;
      meanGz += (g(c) * z(c)) / C;
    }
    for (let c = 0; c < C; c++) result[n * C + c] = rn * (g(c) + meanG + z(c) * meanGz) + Math.abs(carried[n * C + c] as number);
  }
  return result;
}

/** Of each row, the largest |x|. */
function largest(x: Float64Array, N: number, C: number): Float64Array {
  return Float64Array.from({ length: N }, (_, n) => x.subarray(n * C, (n + 1) * C).reduce((most, v) => Math.max(most, Math.abs(v)), 0));
}
