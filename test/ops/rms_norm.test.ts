import { launch } from '../../src/kernel.ts';
import { rmsNorm, rmsNormGrad } from '../reference/rms_norm.ts';
import { bound, parity } from './parity.ts';

// [rows, width]: nothing, one, around every vector width, a prime, real models' widths.
const sizes = [[0, 8], [1, 1], [2, 3], [3, 7], [2, 15], [2, 16], [3, 17], [5, 31], [4, 33], [2, 63], [2, 65], [3, 997], [7, 576], [2, 4096]] as const;
const cases = sizes.map(([N, C]) => ({ N, C, eps: 1e-5 }));

parity('rms_norm', {
  cases,
  halves: 'any rows',
  run(bench, { N, C, eps }) {
    const [x, w] = [bench.randomActivation(N * C), bench.random(C)];
    const [y, r] = [bench.activationOutput([N, C]), bench.output([N])];
    launch('rms_norm', y, r, bench.activation(x, [N, C]), bench.input(w, [C]), eps);
    const want = rmsNorm({ x, w, N, C, eps: Math.fround(eps) });
    return [
      { name: 'y', got: y, want: want.y, within: bound(C, want.y) },
      { name: 'r', got: r, want: want.r, within: bound(C, want.r) },
    ];
  },
});

parity('rms_norm of zeros', {
  cases: [{ N: 2, C: 5, eps: 1e-6 }],
  run(bench, { N, C, eps }) {
    const zeros = new Float64Array(N * C);
    const [y, r] = [bench.output([N, C]), bench.output([N])];
    launch('rms_norm', y, r, bench.input(zeros, [N, C]), bench.input(bench.random(C), [C]), eps);
    const expected = new Float64Array(N).fill(1 / Math.sqrt(Math.fround(eps)));
    return [
      { name: 'y', got: y, want: zeros, within: () => 0 },
      { name: 'r', got: r, want: expected, within: bound(C, expected) },
    ];
  },
});

parity('rms_norm_grad', {
  halves: 'any rows',
  cases: cases.flatMap((testCase) => [{ ...testCase, carry: 'none' }, { ...testCase, carry: 'given' }, { ...testCase, carry: 'is dx' }] as const),
  run(bench, { N, C, eps, carry }) {
    const [x, w, dy, carried] = [bench.randomActivation(N * C), bench.random(C), bench.randomActivation(N * C), bench.randomActivation(N * C)];
    const r = rmsNorm({ x, w, N, C, eps }).r.map(Math.fround);
    const dx = carry === 'is dx' ? bench.activationInout(carried, [N, C]) : bench.activationOutput([N, C]);
    const given = carry === 'none' ? null : carry === 'is dx' ? dx : bench.activation(carried, [N, C]);
    launch('rms_norm_grad', dx, bench.activation(dy, [N, C]), bench.activation(x, [N, C]), bench.input(w, [C]), bench.input(r, [N]), given);
    const own = rmsNormGrad({ dy, x, w, N, C, eps });
    const want = carry === 'none' ? own : own.map((v, i) => v + (carried[i] as number));
    return [{ name: 'dx', got: dx, want, within: bound(C, magnitudes({ dy, x, w, r, N, C, carried })) }];
  },
});

interface Operands {
  readonly dy: Float64Array;
  readonly x: Float64Array;
  readonly w: Float64Array;
  readonly r: Float64Array;
  readonly N: number;
  readonly C: number;
  readonly carried: Float64Array;
}

// |r w dy| + |x| r^3 sum|w dy x| / C + |carry|: what was added to make dx, sign aside.
function magnitudes({ dy, x, w, r, N, C, carried }: Operands): Float64Array {
  const result = new Float64Array(N * C);
  for (let n = 0; n < N; n++) {
    const at = (values: Float64Array, c: number): number => Math.abs(values[n * C + c] as number);
    let dot = 0;
    for (let c = 0; c < C; c++) dot += at(dy, c) * Math.abs(w[c] as number) * at(x, c);
    const rn = r[n] as number;
    for (let c = 0; c < C; c++) result[n * C + c] = rn * at(dy, c) * Math.abs(w[c] as number) + (at(x, c) * rn ** 3 * dot) / C + at(carried, c);
  }
  return result;
}
