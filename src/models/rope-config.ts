import { type ConfigReader, isObject, shown } from './config-reader.ts';
import { type RopeScaling, type RopeSettings, ropeTypes } from './rope.ts';

export interface RopeContext {
  readonly maxPositions: number;
  /** D: numbers of a head. */
  readonly headSize: number;
}

/**
 * Rope's settings out of a config.json: transformers 5 keeps them all in `rope_parameters`, transformers 4 has `rope_theta`
 * and, where rope is scaled, `rope_scaling`. Faults are noted in `config`.
 */
export function readRope(config: ConfigReader, { maxPositions, headSize }: RopeContext): RopeSettings {
  const rope = config.inner(ropeKey(config));
  const theta = rope.positive('rope_theta', config.positive('rope_theta', 10_000));
  const share = rope.positive('partial_rotary_factor', config.positive('partial_rotary_factor', 1));
  const size = Math.trunc(headSize * share);
  if (share > 1) config.fault(`"partial_rotary_factor" must be at most 1 (it is ${share})`);
  else if (size % 2 !== 0 || size === 0) config.fault(`rope must turn an even number of a head's ${headSize} numbers (they are ${size})`);
  const scaling = readScaling(rope, { original: originalPositions(rope, config, maxPositions), maxPositions, size });
  return { theta, size, maxPositions, scaling };
}

/** As in transformers an old `rope_scaling` that is not empty wins over `rope_parameters`. */
function ropeKey(config: ConfigReader): string {
  const old = config.get('rope_scaling');
  return old === null || (isObject(old) && Object.keys(old).length === 0) ? 'rope_parameters' : 'rope_scaling';
}

/** The context that the model was first trained on: beside the other settings it has precedence (Phi-3 writes it there). */
function originalPositions(rope: ConfigReader, config: ConfigReader, maxPositions: number): number {
  const key = 'original_max_position_embeddings';
  return config.whole(key, { fallback: rope.whole(key, { fallback: maxPositions }) });
}

interface ScalingContext {
  readonly original: number;
  readonly maxPositions: number;
  readonly size: number;
}

function readScaling(rope: ConfigReader, context: ScalingContext): RopeScaling {
  const type = rope.text('rope_type', rope.text('type', 'default'));
  switch (type) {
    case 'default':
      refuseLayered(rope);
      return { type };
    case 'dynamic':
      if (context.size === 2) rope.fault(`${rope.quoted('rope_type')} dynamic needs more than 2 numbers that turn`);
      return { type, factor: rope.positive('factor') };
    case 'linear':
      return { type, factor: rope.positive('factor') };
    case 'llama3':
      return readLlama3(rope, context);
    case 'yarn':
      return readYarn(rope, context);
    case 'longrope':
      return readLongrope(rope, context);
    default:
      rope.refuse(`${rope.quoted('rope_type')} must be one of ${ropeTypes.join(', ')} (it is ${JSON.stringify(type)})`);
      return { type: 'default' };
  }
}

/** Models of alternating attention have one set of settings per layer type. */
function refuseLayered(rope: ConfigReader): void {
  const layered = Object.keys(rope.json).filter((key) => isObject(rope.json[key]));
  if (layered.length > 0) rope.refuse(`rope must be the same in all layers (there are settings for ${layered.join(', ')})`);
}

function readLlama3(rope: ConfigReader, { original }: ScalingContext): RopeScaling {
  const [lowFrequencyFactor, highFrequencyFactor] = [rope.positive('low_freq_factor'), rope.positive('high_freq_factor')];
  if (highFrequencyFactor < lowFrequencyFactor) {
    rope.fault(`${rope.quoted('high_freq_factor')} must be above low_freq_factor (${highFrequencyFactor} and ${lowFrequencyFactor})`);
  }
  return { type: 'llama3', factor: rope.positive('factor'), lowFrequencyFactor, highFrequencyFactor, originalPositions: original };
}

function readYarn(rope: ConfigReader, { original, maxPositions }: ScalingContext): RopeScaling {
  const factor = rope.positive('factor', maxPositions / original);
  // Zero and null both mean: not given.
  const [mscale, mscaleAll] = [rope.get('mscale') || null, rope.get('mscale_all_dim') || null];
  const inferred = mscale !== null && mscaleAll !== null ? temperature(factor, rope.positive('mscale')) / temperature(factor, rope.positive('mscale_all_dim')) : temperature(factor, 1);
  return {
    type: 'yarn',
    factor,
    originalPositions: original,
    attentionFactor: rope.positive('attention_factor', inferred),
    betaFast: rope.positive('beta_fast', 32),
    betaSlow: rope.positive('beta_slow', 1),
    truncate: rope.flag('truncate', true),
  };
}

/** How much sharper attention must be in a context `scale` times as long. (Peng et al. 2023, equation 22) */
function temperature(scale: number, weight: number): number {
  return scale <= 1 ? 1 : 0.1 * weight * Math.log(scale) + 1;
}

function readLongrope(rope: ConfigReader, { original, maxPositions, size }: ScalingContext): RopeScaling {
  const factor = rope.positive('factor', maxPositions / original);
  const inferred = factor <= 1 ? 1 : Math.sqrt(1 + Math.log(factor) / Math.log(original));
  return {
    type: 'longrope',
    originalPositions: original,
    attentionFactor: rope.positive('attention_factor', inferred),
    shortFactor: factors(rope, 'short_factor', size / 2),
    longFactor: factors(rope, 'long_factor', size / 2),
  };
}

function factors(rope: ConfigReader, key: string, count: number): number[] {
  const value = rope.get(key);
  if (Array.isArray(value) && value.length === count && value.every((each) => typeof each === 'number' && each > 0)) return value as number[];
  const found = Array.isArray(value) ? `it has ${value.length}: ${shown(value)}` : shown(value);
  rope.fault(`${rope.quoted(key)} must be ${count} numbers above 0 (${found})`);
  return [];
}
