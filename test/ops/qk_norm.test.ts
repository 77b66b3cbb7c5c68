import { launch } from '../../src/kernel.ts';
import { qkNorm, qkNormGrad } from '../reference/qk_norm.ts';
import { bound, parity } from './parity.ts';

// [tokens, query heads, key heads, head size].
const sizes = [[0, 2, 1, 8], [1, 1, 1, 1], [3, 2, 1, 5], [2, 4, 2, 16], [5, 3, 3, 17], [3, 6, 2, 33], [4, 9, 3, 64], [2, 16, 8, 128]] as const;
const cases = sizes.map(([T, H, G, D]) => ({ T, H, G, D, eps: 1e-6 }));

parity('qk_norm', {
  cases,
  halves: 'any rows',
  run(bench, { T, H, G, D, eps }) {
    const cols = (H + 2 * G) * D;
    const [x, wq, wk] = [bench.randomActivation(T * cols), bench.random(D), bench.random(D)];
    const [y, r] = [bench.activationOutput([T, cols]), bench.output([T, H + G])];
    launch('qk_norm', y, r, bench.activation(x, [T, cols]), bench.input(wq, [D]), bench.input(wk, [D]), H, G, eps);
    const want = qkNorm({ x, wq, wk, T, H, G, D, eps: Math.fround(eps) });
    const normed = bound(D, want.y);
    return [
      { name: 'y', got: y, want: want.y, within: (i) => (isValueHead(i, H, G, D) ? 0 : normed(i)) },
      { name: 'r', got: r, want: want.r, within: bound(D, want.r) },
    ];
  },
});

parity('qk_norm_grad', {
  cases,
  halves: 'any rows',
  run(bench, { T, H, G, D, eps }) {
    const cols = (H + 2 * G) * D;
    const [x, dy, wq, wk] = [bench.randomActivation(T * cols), bench.randomActivation(T * cols), bench.random(D), bench.random(D)];
    const { r } = qkNorm({ x, wq, wk, T, H, G, D, eps });
    const dx = bench.activationOutput([T, cols]);
    const operands = [bench.activation(dy, [T, cols]), bench.activation(x, [T, cols]), bench.input(wq, [D]), bench.input(wk, [D]), bench.input(r, [T, H + G])];
    launch('qk_norm_grad', dx, ...operands, H, G);
    const want = qkNormGrad({ dy, x, wq, wk, T, H, G, D, eps });
    // With every sign made positive but that of the second term, which then adds up: |g| r + |x| r^3 mean|g x|.
    const magnitude = want.map((_, i) => {
      const [t, head] = [Math.floor(i / cols), Math.floor((i % cols) / D)];
      if (head >= H + G) return 0;
      const w = head < H ? wq : wk;
      const rn = r[t * (H + G) + head] as number;
      const start = t * cols + head * D;
      const g = (d: number): number => Math.abs((w[d] as number) * (dy[start + d] as number));
      let dot = 0;
      for (let d = 0; d < D; d++) dot += (g(d) * Math.abs(x[start + d] as number)) / D;
      return rn * g(i - start) + Math.abs(x[i] as number) * rn ** 3 * dot;
    });
    const normed = bound(D, magnitude);
    return [{ name: 'dx', got: dx, want, within: (i) => (isValueHead(i, H, G, D) ? 0 : normed(i)) }];
  },
});

/** Value heads pass unchanged, bit for bit. */
function isValueHead(i: number, H: number, G: number, D: number): boolean {
  return Math.floor((i % ((H + 2 * G) * D)) / D) >= H + G;
}
