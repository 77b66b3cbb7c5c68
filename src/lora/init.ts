import { createHash } from 'node:crypto';
import { philox2x32 } from '../data/random.ts';

/** How A starts. */
export interface InitA {
  readonly kind: 'kaiming' | 'gaussian';
  readonly seed: number; // up to 2^53
  /** The module's full name: each module draws from a stream of its own, so that what others there are changes nothing. */
  readonly name: string;
  readonly shape: readonly [number, number]; // [r, K]
}

/**
 * A's first numbers, [r, K]. `kaiming`: uniform within ±1/√K, which is what PEFT's `kaiming_uniform_(a=√5)` comes to; `gaussian`:
 * normal with deviation 1/r.
 *
 * The generator is Philox 2x32-10. Key and upper counter are the first 8 bytes of SHA-256(`seed:name`), little-endian; the lower
 * counter counts pairs of elements. Words w give uniforms (w + ½) / 2^32; normals are Box-Muller's two of the pair.
 */
export function drawA({ kind, seed, name, shape: [rank, width] }: InitA): Float32Array {
  const digest = createHash('sha256').update(`${seed}:${name}`).digest();
  const [key, stream] = [digest.readUInt32LE(0), digest.readUInt32LE(4)];
  const pair = kind === 'kaiming' ? uniforms(1 / Math.sqrt(width)) : normals(1 / rank);
  const values = new Float32Array(rank * width);
  for (let i = 0; i < values.length; i += 2) {
    const [u, v] = philox2x32(i / 2, stream, key);
    const [first, second] = pair((u + 0.5) / 2 ** 32, (v + 0.5) / 2 ** 32);
    values[i] = first;
    if (i + 1 < values.length) values[i + 1] = second;
  }
  return values;
}

type Pair = (u: number, v: number) => [number, number];

function uniforms(bound: number): Pair {
  return (u, v) => [(2 * u - 1) * bound, (2 * v - 1) * bound];
}

function normals(deviation: number): Pair {
  return (u, v) => {
    const radius = deviation * Math.sqrt(-2 * Math.log(u));
    return [radius * Math.cos(2 * Math.PI * v), radius * Math.sin(2 * Math.PI * v)];
  };
}
