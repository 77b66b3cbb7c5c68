import { philox2x32 } from '../data/random.ts';
import { LowrankError } from '../error.ts';

/** How the next token is chosen. */
export interface Sampling {
  /** 0: always the likeliest. Else logits are divided by it. */
  readonly temperature: number;
  /** Only this many of the likeliest; 0: all. */
  readonly topK: number;
  /** Only the likeliest whose probabilities reach this sum together; 1: all. */
  readonly topP: number;
  /** Up to 53 bits. */
  readonly seed: number;
}

/** Chooses a token by its logits. Two samplers of the same seed choose alike. */
export type Sampler = (logits: Float32Array) => number;

/** @throws (the sampler) LowrankError ERR_NONFINITE for logits that have no largest */
export function makeSampler({ temperature, topK, topP, seed }: Sampling): Sampler {
  const key = (seed ^ Math.imul(Math.floor(seed / 2 ** 32), 0x85ebca6b)) >>> 0;
  let drawn = 0;
  return (logits) => {
    const best = likeliest(logits);
    if (temperature === 0) return best;
    const kept = candidates(logits, { best, temperature, topK, topP });
    const [low, high] = philox2x32(drawn++, 0, key);
    return pick(kept, high * 2 ** -32 + (low >>> 11) * 2 ** -53);
  };
}

/** The first of the largest. */
function likeliest(logits: Float32Array): number {
  let best = -1;
  let most = -Infinity;
  for (let id = 0; id < logits.length; id++) {
    const logit = logits[id] as number;
    if (Number.isNaN(logit)) throw notFinite(logit, id);
    if (logit > most) [best, most] = [id, logit];
  }
  if (best < 0 || most === Infinity) throw notFinite(most, best);
  return best;
}

function notFinite(logit: number, id: number): LowrankError {
  return new LowrankError('ERR_NONFINITE', `generate: logits must be finite (that of token ${Math.max(id, 0)} is ${logit})`);
}

interface Candidate {
  readonly id: number;
  readonly weight: number; // its probability, but for a factor that all share
}

interface Choice extends Omit<Sampling, 'seed'> {
  readonly best: number;
}

/** What is left by top-k, then by top-p; the likeliest first unless all are left. */
function candidates(logits: Float32Array, { best, temperature, topK, topP }: Choice): readonly Candidate[] {
  const most = logits[best] as number;
  const all = Array.from(logits, (logit, id) => ({ id, weight: Math.exp((logit - most) / temperature) }));
  if (topK === 0 && topP === 1) return all;
  // Equal weights: the lower id first, so that the order is the same everywhere.
  const sorted = all.sort((a, b) => b.weight - a.weight || a.id - b.id);
  const kept = topK === 0 ? sorted : sorted.slice(0, topK);
  if (topP === 1) return kept;
  const enough = topP * total(kept);
  let sum = 0;
  const count = kept.findIndex(({ weight }) => (sum += weight) >= enough) + 1;
  return count === 0 ? kept : kept.slice(0, count);
}

function total(kept: readonly Candidate[]): number {
  return kept.reduce((sum, { weight }) => sum + weight, 0);
}

/** `uniform` is in [0, 1). */
function pick(kept: readonly Candidate[], uniform: number): number {
  let rest = uniform * total(kept);
  for (const { id, weight } of kept) {
    rest -= weight;
    if (rest < 0) return id;
  }
  // Rounding left a crumb: the last that is possible at all.
  return kept.findLast(({ weight }) => weight > 0)?.id ?? 0;
}
