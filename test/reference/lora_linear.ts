import { dropoutFactors, type Dropout } from './dropout.ts';
import { linear, linearGrad } from './linear.ts';
import type { Numbers } from './numbers.ts';

export interface LoraPart {
  N: number; // outputs of this part
  r: number; // its rank; 0: not adapted
  s: number; // its scale, alpha / r say
}

export interface LoraLinearArgs {
  x: Numbers; // [T, K]
  W: Numbers; // [N, K], the parts' rows one after the other; N = sum of the parts' N
  b?: Numbers | undefined; // [N]
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

/** The dropout factor of each element of x: ones without dropout. */
function factorsOf({ T, K, dropout }: LoraLinearArgs): Float64Array {
  return dropout ? dropoutFactors(dropout, T * K) : new Float64Array(T * K).fill(1);
}

/**
 * y[:, part i] = x W_iᵀ + b_i + u_i B_iᵀ with u_i = s_i x̂ A_iᵀ and x̂ = mask∘x / (1-p). All parts share x and the mask.
 * Returns y [T, N] and u [T, R].
 */
export function loraLinear(args: LoraLinearArgs): { y: Float64Array; u: Float64Array } {
  const { x, W, b, A, B, parts, T, K } = args;
  const { placed, N, R } = places(parts);
  const factors = factorsOf(args);
  const y = linear({ x, W, b, T, N, K });
  const u = new Float64Array(T * R);
  for (let t = 0; t < T; t++) {
    for (const { N: width, r, s, n0, r0, b0 } of placed) {
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
 * With v_i = s_i dy_i B_i: dx = dy W + mask/(1-p) ∘ Σ v_i A_i, dA_i += v_iᵀ x̂, dB_i += dy_iᵀ u_i. W and b are frozen.
 * `into` holds the gradients so far; zeros where it is left out.
 */
export function loraLinearGrad(
  args: LoraLinearArgs & { dy: Numbers; into?: { dA: Numbers; dB: Numbers } | undefined },
): LoraLinearGrads {
  const { dy, x, W, A, B, parts, T, K, into } = args;
  const { placed, N, R } = places(parts);
  const factors = factorsOf(args);
  const { u } = loraLinear(args);
  const dx = linearGrad({ dy, W, T, N, K });
  const dA = Float64Array.from(into?.dA ?? new Float64Array(A.length));
  const dB = Float64Array.from(into?.dB ?? new Float64Array(B.length));
  for (let t = 0; t < T; t++) {
    for (const { N: width, r, s, n0, r0, b0 } of placed) {
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
