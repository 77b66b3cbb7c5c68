import { launch } from '../../src/kernel.ts';
import { swiglu, swigluGrad } from '../reference/swiglu.ts';
import { bound, parity } from './parity.ts';

const sizes = [[0, 8], [1, 1], [2, 3], [3, 7], [2, 15], [2, 16], [3, 17], [5, 31], [4, 33], [3, 997], [3, 1536]] as const;
// 60: gates far out on both sides, where exp leaves f32.
const cases = sizes.flatMap(([T, F]) => [1, 60].map((scale) => ({ T, F, scale })));

parity('swiglu', {
  cases,
  halves: 'any rows',
  run(bench, { T, F, scale }) {
    const x = bench.randomActivation(T * 2 * F, { scale });
    const y = bench.activationOutput([T, F]);
    launch('swiglu', y, bench.activation(x, [T, 2 * F]));
    const want = swiglu({ x, T, F });
    const within = bound(1, want);
    // Below a gate of -87 the sigmoid is a flushed denormal: the result is 0 where it may be gate * up * 2^-126.
    return [{ name: 'y', got: y, want, within: (i) => within(i) + flushed(x[Math.floor(i / F) * 2 * F + (i % F)], x[Math.floor(i / F) * 2 * F + F + (i % F)]) }];
  },
});

parity('swiglu_grad', {
  halves: 'any rows',
  cases: cases.flatMap((testCase) => (['apart', 'dx is x'] as const).map((alias) => ({ ...testCase, alias }))),
  run(bench, { T, F, scale, alias }) {
    const [x, dy] = [bench.randomActivation(T * 2 * F, { scale }), bench.randomActivation(T * F)];
    const stored = alias === 'dx is x' ? bench.activationInout(x, [T, 2 * F]) : bench.activation(x, [T, 2 * F]);
    const dx = alias === 'dx is x' ? stored : bench.activationOutput([T, 2 * F]);
    launch('swiglu_grad', dx, bench.activation(dy, [T, F]), stored);
    const want = swigluGrad({ dy, x, T, F });
    return [{ name: 'dx', got: dx, want, within: bound(1, magnitudes({ dy, x, T, F })) }];
  },
});

function flushed(gate = 0, up = 0): number {
  return 2 ** -126 * Math.abs(gate * up);
}

// |dy up q| (1 + |gate|), since 1 - q is rounded at 1; and |dy gate q|. With 2^-100 for a q that is a flushed denormal.
function magnitudes({ dy, x, T, F }: { dy: Float64Array; x: Float64Array; T: number; F: number }): Float64Array {
  const result = new Float64Array(T * 2 * F);
  for (let t = 0; t < T; t++) {
    for (let f = 0; f < F; f++) {
      const at = t * 2 * F + f;
      const [gate, up] = [x[at] as number, x[at + F] as number];
      const pull = Math.abs(dy[t * F + f] as number) * (1 / (1 + Math.exp(-gate)) + 2 ** -100);
      result[at] = pull * Math.abs(up) * (1 + Math.abs(gate));
      result[at + F] = pull * Math.abs(gate);
    }
  }
  return result;
}
