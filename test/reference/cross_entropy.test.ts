import { describe, expect, test } from 'vitest';
import { of, opCases } from '../golden/read.ts';
import { crossEntropy, crossEntropyGrad, IGNORE, linearCrossEntropy } from './cross_entropy.ts';
import { normals, slopes, worst } from './finite-difference.ts';

const targets = [4, IGNORE, 0];

describe('cross_entropy', () => {
  test('the gradient is the slope of scale times the loss', () => {
    const logits = normals(15, 1);
    const sizes = { targets, T: 3, V: 5 };
    const f = (at: Float64Array) => 0.3 * crossEntropy({ logits: at, ...sizes }).loss;
    expect(worst(crossEntropyGrad({ logits, scale: 0.3, ...sizes }), slopes(f, logits))).toBeLessThan(1e-8);
  });

  test.each(opCases('cross_entropy'))('agrees with PyTorch: $name', ({ numbers, arrays }) => {
    const sizes = { targets: of(arrays, 'targets'), T: of(numbers, 'T'), V: of(numbers, 'V') };
    const scale = of(numbers, 'scale');
    const plain = { logits: of(arrays, 'logits'), ...sizes };
    expect(worst([crossEntropy(plain).loss], [of(numbers, 'loss')])).toBeLessThan(1e-12);
    expect(worst(crossEntropyGrad({ ...plain, scale }), of(arrays, 'dlogits'))).toBeLessThan(1e-12);
    const fused = linearCrossEntropy({ x: of(arrays, 'x'), W: of(arrays, 'W'), C: of(numbers, 'C'), ...sizes, scale });
    expect(worst([fused.loss], [of(numbers, 'loss')])).toBeLessThan(1e-12);
    expect(worst(fused.dx, of(arrays, 'dx'))).toBeLessThan(1e-12);
  });

  test('logits of ±1e5 give a finite loss', () => {
    expect(crossEntropy({ logits: [1e5, -1e5], targets: [1], T: 1, V: 2 }).loss).toBe(2e5);
  });

  test('no target counts: loss, count and gradient are zero', () => {
    const all = { logits: normals(4, 2), targets: [IGNORE, IGNORE], T: 2, V: 2 };
    expect(crossEntropy(all)).toMatchObject({ loss: 0, count: 0 });
    expect(crossEntropyGrad({ ...all, scale: 1 })).toEqual(new Float64Array(4));
  });
});

test('linear_cross_entropy: dx is the slope of scale times the loss', () => {
  const [x, W] = [normals(6, 3), normals(10, 4)];
  const sizes = { W, targets, T: 3, C: 2, V: 5, scale: 0.7 };
  const f = (at: Float64Array) => 0.7 * linearCrossEntropy({ x: at, ...sizes }).loss;
  expect(worst(linearCrossEntropy({ x, ...sizes }).dx, slopes(f, x))).toBeLessThan(1e-8);
});
