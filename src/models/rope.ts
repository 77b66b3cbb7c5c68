// Rotary position embedding: which angles each position turns by. Frequencies are computed in single precision, operation for
// operation as transformers 5.17 does (modeling_rope_utils.py), because training saw these numbers and not exact ones.

export type RopeScaling =
  | { readonly type: 'default' }
  | { readonly type: 'linear'; readonly factor: number }
  | { readonly type: 'dynamic'; readonly factor: number }
  | {
      readonly type: 'llama3';
      readonly factor: number;
      readonly lowFrequencyFactor: number;
      readonly highFrequencyFactor: number;
      readonly originalPositions: number;
    }
  | {
      readonly type: 'yarn';
      readonly factor: number;
      readonly originalPositions: number;
      readonly attentionFactor: number;
      readonly betaFast: number;
      readonly betaSlow: number;
      readonly truncate: boolean;
    }
  | {
      readonly type: 'longrope';
      readonly originalPositions: number;
      readonly attentionFactor: number;
      readonly shortFactor: readonly number[]; // [E/2]
      readonly longFactor: readonly number[]; // [E/2]
    };

export const ropeTypes = ['default', 'linear', 'dynamic', 'llama3', 'yarn', 'longrope'] as const;

export interface RopeSettings {
  readonly theta: number;
  /** E: how many of a head's numbers turn. Even. */
  readonly size: number;
  /** What the configuration calls `max_position_embeddings`. */
  readonly maxPositions: number;
  readonly scaling: RopeScaling;
}

export interface RopeFrequencies {
  /** [E/2]: radians per position. */
  readonly inverse: Float32Array;
  /** What cos and sin are multiplied by. */
  readonly attentionFactor: number;
}

const f32 = Math.fround;

/**
 * The length that decides about the frequencies of a sequence of `length` positions: equal numbers, equal frequencies. Only
 * dynamic and longrope depend on the length at all.
 */
export function frequencyLength({ scaling, maxPositions }: RopeSettings, length: number): number {
  if (scaling.type === 'dynamic') return Math.max(length, maxPositions);
  if (scaling.type === 'longrope') return length > scaling.originalPositions ? scaling.originalPositions + 1 : 0;
  return 0;
}

/**
 * Inverse frequencies for sequences of `length` positions.
 *
 * @example
 * ```ts
 * ropeFrequencies({ theta: 10000, size: 4, maxPositions: 512, scaling: { type: 'default' } }, 512).inverse; // [1, 0.01]
 * ```
 */
export function ropeFrequencies(rope: RopeSettings, length: number): RopeFrequencies {
  const { scaling } = rope;
  const plain = (inverse: Float32Array): RopeFrequencies => ({ inverse, attentionFactor: 1 });
  switch (scaling.type) {
    case 'default':
      return plain(reciprocal(powers(rope.theta, rope.size)));
    case 'linear':
      return plain(reciprocal(powers(rope.theta, rope.size)).map((inverse) => inverse / f32(scaling.factor)));
    case 'dynamic':
      return plain(reciprocal(powers(dynamicTheta(rope, scaling.factor, length), rope.size)));
    case 'llama3':
      return plain(reciprocal(powers(rope.theta, rope.size)).map((inverse) => llama3Inverse(inverse, scaling)));
    case 'yarn':
      return { inverse: yarnInverse(rope, scaling), attentionFactor: scaling.attentionFactor };
    case 'longrope': {
      const stretch = length > scaling.originalPositions ? scaling.longFactor : scaling.shortFactor;
      const inverse = reciprocal(powers(rope.theta, rope.size).map((power, i) => f32(stretch[i] ?? 1) * power));
      return { inverse, attentionFactor: scaling.attentionFactor };
    }
  }
}

/** theta^(2i/E) for i below E/2. */
function powers(theta: number, size: number): Float32Array {
  return Float32Array.from({ length: size / 2 }, (_, i) => f32(theta) ** f32((2 * i) / size));
}

function reciprocal(values: Float32Array): Float32Array {
  return values.map((value) => 1 / value);
}

/** A longer base for a longer sequence (NTK-aware scaling). */
function dynamicTheta({ theta, size, maxPositions }: RopeSettings, factor: number, length: number): number {
  if (length <= maxPositions) return theta;
  const stretched = f32(f32(f32(f32(factor) * length) / maxPositions) - f32(factor - 1));
  return f32(f32(theta) * f32(stretched ** (size / (size - 2))));
}

type Llama3 = Extract<RopeScaling, { type: 'llama3' }>;

/** High frequencies stay, low ones are divided by the factor, those between are blended. */
function llama3Inverse(inverse: number, { factor, lowFrequencyFactor: low, highFrequencyFactor: high, originalPositions }: Llama3): number {
  const wavelength = f32(f32(2 * Math.PI) / inverse);
  if (wavelength < originalPositions / high) return inverse;
  if (wavelength > originalPositions / low) return inverse / f32(factor);
  const smooth = f32(f32(f32(originalPositions / wavelength) - f32(low)) / f32(high - low));
  return f32(f32(f32(f32(1 - smooth) * inverse) / f32(factor)) + f32(smooth * inverse));
}

type Yarn = Extract<RopeScaling, { type: 'yarn' }>;

function yarnInverse({ theta, size }: RopeSettings, { factor, originalPositions, betaFast, betaSlow, truncate }: Yarn): Float32Array {
  // The dimension whose wave turns `rotations` times within the original context.
  const dimensionOf = (rotations: number): number => (size * Math.log(originalPositions / (rotations * 2 * Math.PI))) / (2 * Math.log(theta));
  const [from, to] = [dimensionOf(betaFast), dimensionOf(betaSlow)];
  const low = Math.max(truncate ? Math.floor(from) : from, 0);
  const high = Math.min(truncate ? Math.ceil(to) : to, size - 1);
  const width = low === high ? 0.001 : high - low; // equal bounds: a step, not a division by zero
  return powers(theta, size).map((power, i) => {
    const ramp = Math.min(Math.max(f32(f32(i - f32(low)) / f32(width)), 0), 1);
    const unscaled = f32(1 - ramp);
    return f32(f32(1 / f32(f32(factor) * power)) * f32(1 - unscaled)) + f32(f32(1 / power) * unscaled);
  });
}

/** cos and sin of the first `rows` positions: [rows, E], cos in the first E/2 columns and sin in the others. */
export function ropeTable({ inverse, attentionFactor }: RopeFrequencies, rows: number): Float32Array {
  const half = inverse.length;
  const factor = f32(attentionFactor);
  const table = new Float32Array(rows * 2 * half);
  for (let position = 0; position < rows; position++) {
    const row = position * 2 * half;
    for (let i = 0; i < half; i++) {
      const angle = f32(position * (inverse[i] as number));
      table[row + i] = f32(Math.cos(angle)) * factor;
      table[row + half + i] = f32(Math.sin(angle)) * factor;
    }
  }
  return table;
}
