import { dropoutFactors, type Dropout } from './dropout.ts';
import { linear, linearGrad } from './linear.ts';
import type { Numbers } from './numbers.ts';

export interface LoraPart {
  N: number; // outputs of this part
  r: number; // its rank; 0: not adapted
  s: number; // its scale, alpha / r say
  layer: number; // its number for the dropout generator: each part has a mask of its own
}

export interface LoraLinearArgs {
  x: Numbers; // [T, K]
  W: Numbers; // [N, K], the parts' rows one after the other; N = sum of the parts' N
  b?: Numbers | undefined; // [N]
  carry?: Numbers | undefined; // [T, N], added to the result
  A: Numbers; // [R, K], the parts' rows one after the other; R = sum of r
  B: Numbers; // part after part, each [N_i, r_i]
  parts: readonly LoraPart[];
  T: number;
  K: number;
  dropout?: Dropout | undefined;
}

export interface LoraLinearGrads {
  dx: Float64Array; // [T, K]
  dA: Float64Array; // [R, K], added to what was there
  dB: Float64Array; // as B, added to what was there
}

/** Each part with the places where its outputs, its rows of A and its block of B begin, and the totals. */
function places(parts: readonly LoraPart[]) {
  let [n0, r0, b0] = [0, 0, 0];
  const placed = parts.map((part) => {
    const place = { ...part, n0, r0, b0 };
    n0 += part.N;
    r0 += part.r;
    b0 += part.N * part.r;
    return place;
  });
  return { placed, N: n0, R: r0 };
}

/** The dropout factor of each element of x for one part: ones without dropout. */
function factorsOf({ T, K, dropout }: LoraLinearArgs, { layer }: LoraPart): Float64Array {
  return dropout ? dropoutFactors(dropout, layer, T * K) : new Float64Array(T * K).fill(1);
}

/**
 * y[:, part i] = x W_iᵀ + b_i + u_i B_iᵀ (+ carry) with u_i = s_i x̂_i A_iᵀ and x̂_i = mask_i∘x / (1-p). All parts share x.
 * Returns y [T, N] and u [T, R].
 */
export function loraLinear(args: LoraLinearArgs): { y: Float64Array; u: Float64Array } {
  const { x, W, b, carry, A, B, parts, T, K } = args;
  const { placed, N, R } = places(parts);
  const y = linear({ x, W, b, carry, T, N, K });
  const u = new Float64Array(T * R);
  for (const part of placed) {
    const { N: width, r, s, n0, r0, b0 } = part;
    const factors = factorsOf(args, part);
    for (let t = 0; t < T; t++) {
      for (let i = 0; i < r; i++) {
        let sum = 0;
        for (let k = 0; k < K; k++) sum += factors[t * K + k]! * x[t * K + k]! * A[(r0 + i) * K + k]!;
        u[t * R + r0 + i] = s * sum;
        for (let n = 0; n < width; n++) y[t * N + n0 + n]! += u[t * R + r0 + i]! * B[b0 + n * r + i]!;
      }
    }
  }
  return { y, u };
}

/**
 * With v_i = s_i dy_i B_i: dx = dy W + Σ mask_i/(1-p) ∘ (v_i A_i), dA_i += v_iᵀ x̂_i, dB_i += dy_iᵀ u_i. W and b are frozen.
 * `into` holds the gradients so far; zeros where it is left out.
 */
export function loraLinearGrad(
  args: LoraLinearArgs & { dy: Numbers; into?: { dA: Numbers; dB: Numbers } | undefined },
): LoraLinearGrads {
  const { dy, x, W, A, B, parts, T, K, into } = args;
  const { placed, N, R } = places(parts);
  const { u } = loraLinear(args);
  const dx = linearGrad({ dy, W, T, N, K });
  const dA = Float64Array.from(into?.dA ?? new Float64Array(A.length));
  const dB = Float64Array.from(into?.dB ?? new Float64Array(B.length));
  for (const part of placed) {
    const { N: width, r, s, n0, r0, b0 } = part;
    const factors = factorsOf(args, part);
    for (let t = 0; t < T; t++) {
      for (let i = 0; i < r; i++) {
        let v = 0;
        for (let n = 0; n < width; n++) {
          v += s * dy[t * N + n0 + n]! * B[b0 + n * r + i]!;
          dB[b0 + n * r + i]! += dy[t * N + n0 + n]! * u[t * R + r0 + i]!;
        }
        for (let k = 0; k < K; k++) {
          dA[(r0 + i) * K + k]! += v * factors[t * K + k]! * x[t * K + k]!;
          dx[t * K + k]! += factors[t * K + k]! * v * A[(r0 + i) * K + k]!;
        }
      }
    }
  }
  return { dx, dA, dB };
}

export interface LoraMergeArgs {
  W: Numbers; // [N, K], or [K, N] where `order` says so
  A: Numbers; // [r, K]
  B: Numbers; // [N, r]
  N: number;
  K: number;
  r: number;
  scale: number;
  order: 'out_in' | 'in_out'; // in_out: GPT-2 stores W transposed
}

/** W + scale * B A, in the order in which W is stored. */
export function loraMerge({ W, A, B, N, K, r, scale, order }: LoraMergeArgs): Float64Array {
  const merged = Float64Array.from(W);
  for (let n = 0; n < N; n++) {
    for (let k = 0; k < K; k++) {
      let sum = 0;
      for (let i = 0; i < r; i++) sum += B[n * r + i]! * A[i * K + k]!;
      merged[order === 'out_in' ? n * K + k : k * N + n]! += scale * sum;
    }
  }
  return merged;
}
