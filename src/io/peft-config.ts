import { LowrankError, throwFaults } from '../error.ts';
import { peftNames, resolveLoraConfig, type ResolvedLoraConfig } from '../lora/config.ts';
import { pythonJson } from './python-json.ts';

/** An `adapter_config.json` that lowrank can honour. */
export interface AdapterConfigFile {
  config: ResolvedLoraConfig;
  baseModelNameOrPath: string | null;
  /** Whether the base stores its weights [in, out], as GPT-2 does. A and B are [rank, in] and [out, rank] all the same. */
  fanInFanOut: boolean;
  /** All other keys, known to this version or not, to be written back as they are. */
  kept: Readonly<Record<string, unknown>>;
}

/** What the config file says beside the adapter's own settings. */
export interface AdapterConfigExtra {
  baseModelNameOrPath?: string | null;
  fanInFanOut?: boolean;
  /** `'CAUSAL_LM'` unless `kept` has another. */
  taskType?: string | null;
  /** Written in place of the config's own targets; for `'all-linear'`, see `minimalTargets`. */
  targets?: readonly string[] | string;
}

/** Every key that PEFT 0.21 writes for LoRA, with its default. */
const template: Readonly<Record<string, unknown>> = {
  alora_invocation_tokens: null,
  alpha_pattern: {},
  arrow_config: null,
  auto_mapping: null,
  base_model_name_or_path: null,
  bias: 'none',
  corda_config: null,
  ensure_weight_tying: false,
  eva_config: null,
  exclude_modules: null,
  fan_in_fan_out: false,
  inference_mode: true,
  init_lora_weights: true,
  kasa_config: null,
  layer_replication: null,
  layers_pattern: null,
  layers_to_transform: null,
  loftq_config: {},
  lora_alpha: 8,
  lora_bias: false,
  lora_dropout: 0,
  lora_ga_config: null,
  megatron_config: null,
  megatron_core: 'megatron.core',
  modules_to_save: null,
  monteclora_config: null,
  peft_type: 'LORA',
  peft_version: '0.21.0',
  qalora_group_size: 16,
  r: 8,
  rank_pattern: {},
  revision: null,
  target_modules: null,
  target_parameters: null,
  task_type: 'CAUSAL_LM',
  trainable_token_indices: null,
  use_bdlora: null,
  use_dora: false,
  use_qalora: false,
  use_rslora: false,
  velora_config: null,
};

/** Keys that are a field of the result; everything else is kept as it came. */
const read = new Set([...Object.values(peftNames), 'base_model_name_or_path', 'fan_in_fan_out', 'inference_mode', 'peft_type', 'peft_version', 'runtime_config']);

/** Floats in PEFT's classes: of the config itself, and of the `eva_config` that a file may keep. */
const floats = ['lora_dropout', 'rho', 'tau'];

/** These start A and B otherwise than lowrank does but leave W0 alone: in a file that holds A and B they are history. */
const initsOfThePast: readonly unknown[] = [false, 'eva', 'orthogonal'];

/** Settings that change what the numbers in the adapter mean: when they are set, and what honouring them would take. */
const unsupported: readonly { key: string; isSet: (value: unknown) => boolean; needs: string }[] = [
  { key: 'peft_type', isSet: (v) => v !== 'LORA', needs: 'only "LORA" is read' },
  { key: 'task_type', isSet: (v) => !blank(v) && v !== 'CAUSAL_LM', needs: 'only "CAUSAL_LM" or null; other tasks need another head' },
  { key: 'bias', isSet: (v) => !blank(v) && v !== 'none', needs: 'trained biases of the base model would be needed' },
  { key: 'use_dora', isSet: filled, needs: 'the row norms of W0 + scale·BA would be needed (DoRA)' },
  { key: 'lora_bias', isSet: filled, needs: 'B would need a bias' },
  { key: 'modules_to_save', isSet: filled, needs: 'fully trained copies of modules would be needed' },
  { key: 'trainable_token_indices', isSet: filled, needs: 'trained rows of the embedding would be needed' },
  { key: 'layer_replication', isSet: filled, needs: 'a model with repeated layers would be needed' },
  { key: 'target_parameters', isSet: filled, needs: 'adapters on bare parameters (expert weights) would be needed' },
  { key: 'alora_invocation_tokens', isSet: filled, needs: 'an adapter that starts at certain tokens would be needed (aLoRA)' },
  { key: 'use_qalora', isSet: filled, needs: 'an input averaged over groups would be needed (QA-LoRA)' },
  { key: 'use_bdlora', isSet: filled, needs: 'block-diagonal A or B would be needed (BD-LoRA)' },
  { key: 'kasa_config', isSet: filled, needs: 'a truncated W0 and a diagonal between A and B would be needed (KaSA)' },
  { key: 'monteclora_config', isSet: filled, needs: 'sampled weights would be needed (MonteCLoRA)' },
  { key: 'velora_config', isSet: filled, needs: 'compressed activations would be needed (VeLoRA)' },
  { key: 'arrow_config', isSet: filled, needs: 'routing between adapters would be needed (Arrow)' },
  { key: 'megatron_config', isSet: filled, needs: 'layers split over machines would be needed (Megatron)' },
  { key: 'init_lora_weights', isSet: (v) => typeof v === 'string' && v !== 'gaussian' && !initsOfThePast.includes(v), needs: 'it changes W0 or freezes B, so the adapter fits that base only; convert it with PEFT (path_initial_model_for_weight_conversion)' },
];

function blank(value: unknown): boolean {
  return value === undefined || value === null;
}

function filled(value: unknown): boolean {
  if (typeof value === 'object' && value !== null) return Array.isArray(value) ? value.length > 0 : true;
  return !blank(value) && value !== false;
}

/**
 * Reads the text of an `adapter_config.json`. As in PEFT only `peft_type` has to be there; unknown keys are kept.
 *
 * @param file named in errors.
 * @throws `ERR_UNSUPPORTED` with every setting that lowrank can't honour, `ERR_FORMAT` with every fault.
 * @example
 * ```ts
 * parseAdapterConfig('{"peft_type":"LORA","r":4,"lora_alpha":8,"target_modules":["q_proj"]}', 'adapter_config.json').config.rank; // 4
 * ```
 */
export function parseAdapterConfig(text: string, file: string): AdapterConfigFile {
  const raw = parseObject(text, file);
  if (raw['peft_type'] === undefined) throw new LowrankError('ERR_FORMAT', `${file}: must have "peft_type" (it has ${list(Object.keys(raw))})`);
  const refused = unsupported.filter(({ key, isSet }) => isSet(raw[key])).map(({ key, needs }) => `${key} ${show(raw[key])} is not supported: ${needs}`);
  throwFaults('ERR_UNSUPPORTED', file, refused);
  const own = Object.entries(raw).filter(([key, value]) => settingNames.has(key) && !(value === null && !nullable.has(key)));
  const { config, faults } = resolveLoraConfig(Object.fromEntries(own.map(([key, value]) => [key, key === 'init_lora_weights' ? presentInit(value) : value])));
  const base = raw['base_model_name_or_path'] ?? null;
  const fanInFanOut = raw['fan_in_fan_out'] ?? false;
  if (base !== null && typeof base !== 'string') faults.push(`base_model_name_or_path: must be a string or null (it is ${show(base)})`);
  if (typeof fanInFanOut !== 'boolean') faults.push(`fan_in_fan_out: must be true or false (it is ${show(fanInFanOut)})`);
  throwFaults('ERR_FORMAT', file, faults);
  const kept = Object.entries(raw).filter(([key, value]) => !read.has(key) || (key === 'init_lora_weights' && initsOfThePast.includes(value)));
  return { config, baseModelNameOrPath: base as string | null, fanInFanOut: fanInFanOut as boolean, kept: Object.fromEntries(kept) };
}

const settingNames: ReadonlySet<string> = new Set(Object.values(peftNames));

/** For the others null means the default, as older files have it. */
const nullable: ReadonlySet<string> = new Set(['target_modules', 'exclude_modules', 'layers_to_transform', 'layers_pattern']);

function presentInit(value: unknown): unknown {
  return initsOfThePast.includes(value) ? true : value;
}

function parseObject(text: string, file: string): Record<string, unknown> {
  let raw: unknown;
  try {
    raw = JSON.parse(text);
  } catch (cause) {
    throw new LowrankError('ERR_FORMAT', `${file}: must be JSON (${(cause as Error).message})`, { cause });
  }
  if (typeof raw !== 'object' || raw === null || Array.isArray(raw)) throw new LowrankError('ERR_FORMAT', `${file}: must be an object (it is ${show(raw)})`);
  return raw as Record<string, unknown>;
}

/**
 * The text of an `adapter_config.json` as PEFT 0.21 writes it, byte for byte: all of its keys, sorted, and no final newline.
 * Keys of `kept` come back unless the config itself has a say in them.
 *
 * @example
 * ```ts
 * const text = serializeAdapterConfig(config, {}, { baseModelNameOrPath: 'SmolLM-135M' });
 * ```
 */
export function serializeAdapterConfig(config: ResolvedLoraConfig, kept: Readonly<Record<string, unknown>> = {}, extra: AdapterConfigExtra = {}): string {
  const { baseModelNameOrPath = null, fanInFanOut = false, taskType, targets } = extra;
  const settings = Object.entries(peftNames).map(([name, key]) => [key, config[name as keyof ResolvedLoraConfig]]);
  const init = config.init === 'gaussian' ? 'gaussian' : (kept['init_lora_weights'] ?? true);
  const content: Record<string, unknown> = {
    ...template,
    ...kept,
    ...(Object.fromEntries(settings) as Record<string, unknown>),
    init_lora_weights: init,
    base_model_name_or_path: baseModelNameOrPath,
    fan_in_fan_out: fanInFanOut,
    ...(taskType === undefined ? {} : { task_type: taskType }),
    ...(targets === undefined ? {} : { target_modules: targets }),
  };
  // The first pattern that fits a name wins. PEFT sorts the keys on writing and may so read back other ranks than it
  // wrote; the order given is kept here.
  return pythonJson(content, { floats, unsorted: ['rank_pattern', 'alpha_pattern'] });
}

function show(value: unknown): string {
  const text = JSON.stringify(value) ?? 'missing';
  return text.length > 80 ? `${text.slice(0, 80)}…` : text;
}

function list(names: readonly string[]): string {
  return names.length === 0 ? 'no keys' : names.slice(0, 8).join(', ') + (names.length > 8 ? ', …' : '');
}
