import { type ConfigReader, shown } from './config-reader.ts';
import { refuseCommon } from './family.ts';
import { readRope } from './rope-config.ts';
import type { RopeSettings } from './rope.ts';

/** What a model of the Llama family looks like, whatever its config.json calls it. */
export interface LlamaSettings {
  readonly vocabSize: number;
  readonly hiddenSize: number;
  readonly intermediateSize: number;
  readonly layers: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headSize: number;
  readonly maxPositions: number;
  readonly normEps: number;
  readonly tied: boolean;
  readonly rope: RopeSettings;
  /** Keys that a query of each layer sees, itself included; 0: all before it. */
  readonly windows: readonly number[];
  readonly qkvBias: boolean;
  readonly outputBias: boolean; // of o_proj
  readonly mlpBias: boolean;
  readonly qkNorm: boolean;
}

/** How the members of the family differ. Defaults are those of transformers' config classes. */
interface Member {
  readonly kvHeads: (heads: number) => number;
  readonly headSize: (hiddenSize: number, heads: number) => number;
  readonly maxPositions: number;
  readonly biases: (config: ConfigReader) => Pick<LlamaSettings, 'qkvBias' | 'outputBias' | 'mlpBias'>;
  readonly qkNorm: boolean;
  readonly windows: (config: ConfigReader, layers: number) => number[];
}

const divided = (hiddenSize: number, heads: number): number => Math.floor(hiddenSize / heads);
const noBias = { qkvBias: false, outputBias: false, mlpBias: false };

const members: Readonly<Record<string, Member>> = {
  llama: {
    kvHeads: (heads) => heads,
    headSize: divided,
    maxPositions: 2048,
    biases(config) {
      const attention = config.flag('attention_bias', false);
      return { qkvBias: attention, outputBias: attention, mlpBias: config.flag('mlp_bias', false) };
    },
    qkNorm: false,
    windows(config, layers) {
      refuseLayerTypes(config, ['full_attention']);
      return Array<number>(layers).fill(0);
    },
  },
  mistral: {
    kvHeads: () => 8,
    headSize: divided,
    maxPositions: 131_072,
    biases: () => noBias,
    qkNorm: false,
    windows(config, layers) {
      // Not written at all, it means 4096; null means none.
      const window = Object.hasOwn(config.json, 'sliding_window') ? config.whole('sliding_window', { fallback: 0 }) : 4096;
      refuseLayerTypes(config, [window === 0 ? 'full_attention' : 'sliding_attention']);
      return Array<number>(layers).fill(window);
    },
  },
  qwen2: {
    kvHeads: () => 32,
    headSize: divided,
    maxPositions: 32_768,
    biases: () => ({ ...noBias, qkvBias: true }),
    qkNorm: false,
    windows: qwenWindows,
  },
  qwen3: {
    kvHeads: () => 32,
    headSize: () => 128,
    maxPositions: 32_768,
    biases(config) {
      const attention = config.flag('attention_bias', false);
      return { qkvBias: attention, outputBias: attention, mlpBias: false };
    },
    qkNorm: true,
    windows: qwenWindows,
  },
};

/** The values of `model_type` that this file reads. */
export const llamaTypes: readonly string[] = Object.keys(members);

/** Reads and checks; faults are noted in `config`. */
export function readLlamaConfig(type: string, config: ConfigReader): LlamaSettings {
  const member = members[type] as Member;
  refuseVariants(config);
  const [vocabSize, hiddenSize, intermediateSize] = [config.whole('vocab_size'), config.whole('hidden_size'), config.whole('intermediate_size')];
  const [layers, heads] = [config.whole('num_hidden_layers'), config.whole('num_attention_heads')];
  const kvHeads = config.whole('num_key_value_heads', { fallback: member.kvHeads(heads) });
  const headSize = config.whole('head_dim', { fallback: member.headSize(hiddenSize, heads) });
  const maxPositions = config.whole('max_position_embeddings', { fallback: member.maxPositions });
  if (heads % kvHeads !== 0) config.fault(`"num_attention_heads" must be a multiple of "num_key_value_heads" (${heads} and ${kvHeads})`);
  return {
    ...{ vocabSize, hiddenSize, intermediateSize, layers, heads, kvHeads, headSize, maxPositions },
    normEps: config.positive('rms_norm_eps', 1e-6),
    tied: config.flag('tie_word_embeddings', false),
    rope: readRope(config, { maxPositions, headSize }),
    windows: member.windows(config, layers),
    ...member.biases(config),
    qkNorm: member.qkNorm,
  };
}

/** What some checkpoints of this `model_type` have and this package doesn't compute. */
function refuseVariants(config: ConfigReader): void {
  const activation = config.text('hidden_act', 'silu');
  if (activation !== 'silu' && activation !== 'swish') config.refuse(`"hidden_act" must be "silu" (it is ${JSON.stringify(activation)})`);
  config.mustBe('pretraining_tp', 1, '; set it to 1: transformers 5 takes no notice of it');
  refuseCommon(config);
  for (const key of ['num_experts', 'num_local_experts', 'n_routed_experts']) {
    if (config.has(key)) config.refuse(`mixtures of experts are not supported ("${key}": ${shown(config.get(key))})`);
  }
}

/** `layer_types`, where it is written, must hold nothing else. */
function refuseLayerTypes(config: ConfigReader, allowed: readonly string[]): readonly string[] | null {
  const types = config.get('layer_types');
  if (types === null) return null;
  if (Array.isArray(types) && types.every((type) => allowed.includes(type as string))) return types as string[];
  config.refuse(`"layer_types" must hold only ${allowed.join(' and ')} (${shown(types)})`);
  return null;
}

/** Qwen: a window from layer `max_window_layers` on, or where `layer_types` says so, and only if `use_sliding_window` is on. */
function qwenWindows(config: ConfigReader, layers: number): number[] {
  const inUse = config.flag('use_sliding_window', false);
  const window = inUse ? config.whole('sliding_window', { fallback: Object.hasOwn(config.json, 'sliding_window') ? 0 : 4096, min: 0 }) : 0;
  const from = config.whole('max_window_layers', { min: 0, fallback: 28 });
  const types = refuseLayerTypes(config, window > 0 ? ['full_attention', 'sliding_attention'] : ['full_attention']);
  if (types !== null && types.length !== layers) config.fault(`"layer_types" must have ${layers} entries (it has ${types.length})`);
  return Array.from({ length: layers }, (_, i) => ((types === null ? i >= from : types[i] === 'sliding_attention') ? window : 0));
}
