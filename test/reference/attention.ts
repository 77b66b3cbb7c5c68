import type { Numbers } from './numbers.ts';

export interface AttentionArgs {
  qkv: Numbers; // [T, (H + 2G) * D]: q heads, k heads, v heads
  offsets: Numbers; // [S + 1]: sequence s is the tokens offsets[s] .. offsets[s+1] - 1; the last is T
  T: number;
  H: number;
  G: number;
  D: number;
  window: number; // a query at i sees keys j with i - window < j <= i; 0: all j <= i
  scale: number;
}

/** Where the parts of a packed row begin, and which keys a query sees. */
function layout({ offsets, H, G, D, window }: AttentionArgs) {
  const width = (H + 2 * G) * D;
  const group = (h: number) => Math.floor(h / (H / G));
  return {
    q: (t: number, h: number) => t * width + h * D,
    k: (t: number, h: number) => t * width + (H + group(h)) * D,
    v: (t: number, h: number) => t * width + (H + G + group(h)) * D,
    firstKey: (t: number) => {
      let start = 0;
      for (let s = 0; s + 1 < offsets.length; s++) if (offsets[s]! <= t) start = offsets[s]!;
      return window > 0 ? Math.max(start, t - window + 1) : start;
    },
  };
}

/** Probabilities of the keys firstKey .. t for query t of head h, and the natural log of the sum of exponentials. */
function softmaxRow(args: AttentionArgs, t: number, h: number): { first: number; p: number[]; lse: number } {
  const { qkv, D, scale } = args;
  const at = layout(args);
  const first = at.firstKey(t);
  const scores: number[] = [];
  for (let j = first; j <= t; j++) {
    let dot = 0;
    for (let d = 0; d < D; d++) dot += qkv[at.q(t, h) + d]! * qkv[at.k(j, h) + d]!;
    scores.push(dot * scale);
  }
  const max = Math.max(...scores);
  const lse = max + Math.log(scores.reduce((sum, s) => sum + Math.exp(s - max), 0));
  return { first, p: scores.map((s) => Math.exp(s - lse)), lse };
}

/**
 * Causal attention in each packed sequence; query head h reads kv head floor(h / (H/G)).
 * Returns y [T, H*D] and lse [T, H] (natural log of the sum of exponentials of the scaled scores).
 */
export function attention(args: AttentionArgs): { y: Float64Array; lse: Float64Array } {
  const { qkv, T, H, D } = args;
  const at = layout(args);
  const y = new Float64Array(T * H * D);
  const lse = new Float64Array(T * H);
  for (let t = 0; t < T; t++) {
    for (let h = 0; h < H; h++) {
      const row = softmaxRow(args, t, h);
      lse[t * H + h] = row.lse;
      row.p.forEach((p, i) => {
        for (let d = 0; d < D; d++) y[(t * H + h) * D + d]! += p * qkv[at.v(row.first + i, h) + d]!;
      });
    }
  }
  return { y, lse };
}

/**
 * dqkv [T, (H+2G)*D] for dy [T, H*D]. With p the probabilities: dv_j += p_j dy, dp_j = dy . v_j,
 * ds_j = p_j (dp_j - sum_i p_i dp_i), dq += scale ds_j k_j, dk_j += scale ds_j q.
 */
export function attentionGrad({ dy, ...args }: AttentionArgs & { dy: Numbers }): Float64Array {
  const { qkv, T, H, D, scale } = args;
  const at = layout(args);
  const dqkv = new Float64Array(qkv.length);
  for (let t = 0; t < T; t++) {
    for (let h = 0; h < H; h++) {
      const { first, p } = softmaxRow(args, t, h);
      const dp = p.map((_, i) => {
        let dot = 0;
        for (let d = 0; d < D; d++) dot += dy[(t * H + h) * D + d]! * qkv[at.v(first + i, h) + d]!;
        return dot;
      });
      const mean = p.reduce((sum, pi, i) => sum + pi * dp[i]!, 0);
      p.forEach((pi, i) => {
        const ds = pi * (dp[i]! - mean);
        for (let d = 0; d < D; d++) {
          dqkv[at.v(first + i, h) + d]! += pi * dy[(t * H + h) * D + d]!;
          dqkv[at.q(t, h) + d]! += scale * ds * qkv[at.k(first + i, h) + d]!;
          dqkv[at.k(first + i, h) + d]! += scale * ds * qkv[at.q(t, h) + d]!;
        }
      });
    }
  }
  return dqkv;
}
