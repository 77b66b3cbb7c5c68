import { describe, expect, test } from 'vitest';
import type { Weight } from '../src/device.ts';
import { add, copy } from '../src/ops/elementwise.ts';
import { gelu } from '../src/ops/gelu.ts';
import { linear } from '../src/ops/linear.ts';
import { rmsNorm } from '../src/ops/rms_norm.ts';
import { scope } from '../src/scope.ts';
import { activeTape, checkpoint, Tape, untaped } from '../src/tape.ts';
import type { Tensor } from '../src/tensor.ts';
import { onCpu } from './on-cpu.ts';
import { dot, normals, slopes, worst } from './reference/finite-difference.ts';

const cpu = onCpu();
const [T, C] = [3, 5];
const tensor = (seed: number, shape: readonly number[] = [T, C]): Tensor =>
  cpu.device.tensor(Float32Array.from(normals(shape.reduce((n, dim) => n * dim, 1), seed)), shape);

/** Gradient of Σ y·dy with respect to x, and the most bytes that the tape held. */
async function gradient(forward: (x: Tensor) => Tensor): Promise<{ dx: Float32Array; savedBytes: number }> {
  using x = tensor(1);
  using tape = new Tape();
  tape.watch(x);
  let savedBytes = 0;
  using dx = scope(() => {
    const y = tape.record(() => forward(x));
    savedBytes = tape.savedBytes;
    return tape.backward(y, tensor(2, y.shape)).get(x) as Tensor;
  });
  expect(tape.savedBytes, 'held after backward').toBe(0);
  return { dx: await dx.data(), savedBytes };
}

/** The same by differences of the forward pass, in f32: good to a few 1e-3. */
async function byDifferences(forward: (x: Tensor) => Tensor, shape: readonly number[] = [T, C]): Promise<Float64Array> {
  const dy = normals(shape.reduce((n, dim) => n * dim, 1), 2);
  const x0 = Float64Array.from(normals(T * C, 1), Math.fround);
  const values: number[] = [];
  const points: Float64Array[] = [];
  slopes((at) => (points.push(Float64Array.from(at)), 0), x0, 1e-2);
  for (const point of points) {
    using x = cpu.device.tensor(Float32Array.from(point), [T, C]);
    using y = untaped(() => scope(() => forward(x)));
    values.push(dot(await y.data(), dy));
  }
  let i = 0;
  return slopes(() => values[i++] as number, x0, 1e-2);
}

function withOperands<R>(body: (norm: Tensor, weight: Weight) => Promise<R>): Promise<R> {
  const [norm, matrix] = [tensor(3, [C]), tensor(4, [C, C])];
  const weight = cpu.device.weight([matrix]);
  return body(norm, weight).finally(() => [norm, matrix, weight].forEach((each) => each.dispose()));
}

type Program = (x: Tensor, norm: Tensor, weight: Weight) => Tensor;
const block: Program = (x, norm, weight) => linear(gelu(linear(rmsNorm(x, norm, 1e-5), { weight, bias: null }), 'erf'), { weight, bias: null }, x);

describe('tape: gradients agree with differences of the forward pass', () => {
  const programs: Record<string, Program> = {
    'one op': (x, norm) => rmsNorm(x, norm, 1e-5),
    'x used twice by one op': (x) => add(x, x),
    'x used by three ops': (x, norm) => add(add(rmsNorm(x, norm, 1e-5), gelu(x, 'tanh')), x),
    'a sum whose one side is passed on': (x) => add(gelu(x, 'erf'), copy(x)),
    'a sum of sums, dy handed through': (x) => { const y = gelu(x, 'erf'); return add(add(y, y), add(y, x)); },
    'a residual stream with a pending gradient': block,
    'two blocks': (x, norm, weight) => block(block(x, norm, weight), norm, weight),
    'a norm whose input also leaves': (x, norm) => { const h = gelu(x, 'erf'); return add(rmsNorm(h, norm, 1e-5), h); },
  };
  test.each(Object.entries(programs))('%s', (_, program) => withOperands(async (norm, weight) => {
    const forward = (x: Tensor): Tensor => program(x, norm, weight);
    const { dx } = await gradient(forward);
    expect(worst(dx, await byDifferences(forward))).toBeLessThan(4e-3);
  }));
});

describe('checkpoint', () => {
  const program = (wrap: (body: (x: Tensor) => Tensor, x: Tensor) => Tensor): Program => (x, norm, weight) => {
    const once = (h: Tensor): Tensor => wrap((inner) => block(inner, norm, weight), h);
    return once(once(add(x, x)));
  };
  const plain = program((body, x) => body(x));
  const checkpointed = program(checkpoint);

  test('gives the gradients bit for bit and holds fewer bytes', () => withOperands(async (norm, weight) => {
    const [a, b] = [await gradient((x) => plain(x, norm, weight)), await gradient((x) => checkpointed(x, norm, weight))];
    expect(Buffer.compare(Buffer.from(a.dx.buffer), Buffer.from(b.dx.buffer))).toBe(0);
    expect(b.savedBytes).toBe(2 * 4 * T * C); // the two inputs, nothing else
    expect(a.savedBytes).toBeGreaterThan(b.savedBytes);
  }));

  test('without a tape is a scope around the body', () => withOperands(async (norm, weight) => {
    using x = tensor(1);
    const before = cpu.device.stats().tensors;
    using y = checkpoint((h) => block(h, norm, weight), x);
    expect(cpu.device.stats().tensors).toBe(before + 1);
    expect(y.shape).toEqual([T, C]);
  }));
});

describe('tape: what is recorded', () => {
  test('nothing without a watched or trained input, and nothing is held', () => withOperands(async (norm, weight) => {
    using x = tensor(1);
    using tape = new Tape();
    using y = tape.record(() => scope(() => block(x, norm, weight)));
    expect([tape.savedBytes, tape.wants(y)]).toEqual([0, false]);
  }));

  test('nothing inside untaped, and record puts the tape back afterwards, also after an error', () => {
    using tape = new Tape();
    tape.record(() => untaped(() => expect(activeTape()).toBeNull()));
    expect(() => tape.record(() => { throw new Error('stop'); })).toThrow('stop');
    expect(activeTape()).toBeNull();
  });

  test('a tensor that two ops save is held once', () => withOperands(async (norm, weight) => {
    using x = tensor(1);
    using tape = new Tape();
    tape.watch(x);
    scope(() => {
      tape.record(() => {
        const h = linear(x, { weight, bias: null });
        return add(rmsNorm(h, norm, 1e-5), rmsNorm(h, norm, 1e-6)); // h, and an r each
      });
      expect(tape.savedBytes).toBe(4 * (T * C + 2 * T));
    });
  }));

  describe('what a cheap op made', () => {
    /** x through two norms, one behind the other, each read by a gelu. */
    const program = (x: Tensor, norm: Tensor): Tensor => {
      const h = rmsNorm(x, norm, 1e-5);
      return add(gelu(h, 'erf'), gelu(rmsNorm(h, norm, 1e-6), 'erf'));
    };

    test('is not held but made again, also from what is itself made again, and nothing stays behind', () => withOperands(async (norm) => {
      const { dx, savedBytes } = await gradient((x) => program(x, norm));
      expect(savedBytes).toBe(4 * 2 * T); // r of both
      const expected = await byDifferences((x) => program(x, norm));
      expect(worst(dx, expected)).toBeLessThan(5e-3);
    }));

    test('may be the user\'s: disposed of early or kept, the gradient has the same bits', () => withOperands(async (norm) => {
      const run = async (early: boolean): Promise<Float32Array> => {
        using x = tensor(1);
        using tape = new Tape();
        tape.watch(x);
        const [h, y] = tape.record(() => {
          const made = rmsNorm(x, norm, 1e-5);
          return [made, gelu(made, 'erf')];
        });
        if (early) h!.dispose();
        using dx = tape.backward(y!, tensor(2)).get(x)!;
        expect(h!.disposed, 'whoever has it keeps it').toBe(early);
        [h, y].forEach((each) => each!.dispose());
        return dx.data();
      };
      expect(await run(true)).toEqual(await run(false));
    }));

    test('is let go of when a rule behind it fails', () => withOperands(async (norm) => {
      const x = tensor(1);
      using tape = new Tape();
      tape.watch(x);
      scope(() => {
        const y = tape.record(() => program(x, norm));
        x.dispose();
        expect(() => tape.backward(y, tensor(2))).toThrow(expect.objectContaining({ code: 'ERR_DISPOSED' }));
      });
    }));
  });

  test('dispose without backward lets go of everything', () => withOperands(async (norm, weight) => {
    using x = tensor(1);
    const before = cpu.device.stats().tensors;
    const tape = new Tape();
    tape.watch(x);
    scope(() => void tape.record(() => block(x, norm, weight)));
    expect(cpu.device.stats().tensors).toBeGreaterThan(before);
    tape.dispose();
    expect(cpu.device.stats().tensors).toBe(before);
  }));

  test('an input disposed of before backward is told, and nothing leaks', () => {
    const x = tensor(1);
    using tape = new Tape();
    tape.watch(x);
    scope(() => {
      const y = tape.record(() => gelu(x, 'erf'));
      x.dispose();
      expect(() => tape.backward(y, tensor(2))).toThrow(expect.objectContaining({ code: 'ERR_DISPOSED' }));
    });
  });
});
