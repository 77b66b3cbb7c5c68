import type { Numbers } from './numbers.ts';

export interface RopeArgs {
  x: Numbers; // [T, (H + 2G) * D]: q heads, k heads, v heads
  positions: Numbers; // [T]
  table: Numbers; // [P, E]: cos in the first E/2 columns, sin in the last E/2
  T: number;
  H: number;
  G: number;
  D: number;
  E?: number | undefined; // how many numbers of a head turn, the first E; D where left out
}

/**
 * Rotates the q and k heads by their token's position; v heads are copied. Half-split, as HF's `rotate_half`: element i
 * of a head is paired with i + E/2. y1 = x1 cos - x2 sin, y2 = x2 cos + x1 sin. Returns y [T, (H+2G)*D].
 */
export function rope(args: RopeArgs): Float64Array {
  return rotate(args, 1);
}

/** dx for dy [T, (H+2G)*D]: the transpose of the rotation, which is the same with the sign of sin turned. */
export function ropeGrad({ dy, ...args }: Omit<RopeArgs, 'x'> & { dy: Numbers }): Float64Array {
  return rotate({ ...args, x: dy }, -1);
}

function rotate({ x, positions, table, T, H, G, D, E = D }: RopeArgs, sign: 1 | -1): Float64Array {
  const y = Float64Array.from(x);
  for (let t = 0; t < T; t++) {
    for (let h = 0; h < H + G; h++) {
      const start = (t * (H + 2 * G) + h) * D;
      for (let i = 0; i < E / 2; i++) {
        const cos = table[positions[t]! * E + i]!;
        const sin = sign * table[positions[t]! * E + E / 2 + i]!;
        const x1 = x[start + i]!;
        const x2 = x[start + E / 2 + i]!;
        y[start + i] = x1 * cos - x2 * sin;
        y[start + E / 2 + i] = x2 * cos + x1 * sin;
      }
    }
  }
  return y;
}

/** The table for plain RoPE: cos and sin of p * theta^(-2i/D), [P, D]. */
export function ropeTable({ P, D, theta }: { P: number; D: number; theta: number }): Float64Array {
  const table = new Float64Array(P * D);
  for (let p = 0; p < P; p++) {
    for (let i = 0; i < D / 2; i++) {
      const angle = p * theta ** ((-2 * i) / D);
      table[p * D + i] = Math.cos(angle);
      table[p * D + D / 2 + i] = Math.sin(angle);
    }
  }
  return table;
}
