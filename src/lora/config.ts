import { throwFaults } from '../error.ts';
import { fromPython, toPython } from '../io/python-regex.ts';

/**
 * What an adapter is. Names and meaning are PEFT's, in camelCase; PEFT's own spellings (`r`, `lora_alpha`,
 * `target_modules`, …) are taken too.
 */
export interface LoraConfig {
  /** R, the width of the update; 8. */
  rank?: number;
  /** The update is scaled by alpha / rank; 8. */
  alpha?: number;
  /**
   * Which linear layers get an adapter: names or ends of names at a dot (`'q_proj'`), one regular expression that must
   * match a whole name (as source in Python's spelling, or a RegExp), or `'all-linear'`: all but the output head.
   * Left out: the model family's usual ones.
   */
  targets?: readonly string[] | string | RegExp | null;
  /** Share of the adapter's input that is dropped while training, 0 ≤ p < 1, to 16 bits; 0. */
  dropout?: number;
  /** Scale by alpha / √rank instead. */
  useRslora?: boolean;
  /** Ranks of single layers: the key is a regular expression for the end of a name, the first hit wins. */
  rankPattern?: Readonly<Record<string, number>>;
  /** The same for alpha. */
  alphaPattern?: Readonly<Record<string, number>>;
  /** Only these layers, counted from 0; with a list of targets only. */
  layersToTransform?: readonly number[] | number | null;
  /** Names of the lists that `layersToTransform` counts in (`'layers'`, `'h'`). */
  layersPattern?: readonly string[] | string | null;
  /** Layers to leave out, named like targets. */
  excludeModules?: readonly string[] | string | RegExp | null;
  /** How A starts; B starts at zero. `'kaiming'`: uniform within 1/√in. `'gaussian'`: normal with deviation 1/rank. */
  init?: 'kaiming' | 'gaussian';
}

/** A config with nothing left open and nothing wrong; expressions are in Python's spelling. */
export interface ResolvedLoraConfig {
  rank: number;
  alpha: number;
  targets: string[] | string | null;
  dropout: number;
  useRslora: boolean;
  rankPattern: Record<string, number>;
  alphaPattern: Record<string, number>;
  layersToTransform: number[] | number | null;
  layersPattern: string[] | string | null;
  excludeModules: string[] | string | null;
  init: 'kaiming' | 'gaussian';
}

/** The name PEFT 0.21 gives each setting in `adapter_config.json`. */
export const peftNames: Readonly<Record<keyof ResolvedLoraConfig, string>> = {
  rank: 'r',
  alpha: 'lora_alpha',
  targets: 'target_modules',
  dropout: 'lora_dropout',
  useRslora: 'use_rslora',
  rankPattern: 'rank_pattern',
  alphaPattern: 'alpha_pattern',
  layersToTransform: 'layers_to_transform',
  layersPattern: 'layers_pattern',
  excludeModules: 'exclude_modules',
  init: 'init_lora_weights',
};

type Setting = keyof ResolvedLoraConfig;
const settings = Object.keys(peftNames) as Setting[];

/** PEFT's defaults. */
const defaults: ResolvedLoraConfig = {
  rank: 8,
  alpha: 8,
  targets: null,
  dropout: 0,
  useRslora: false,
  rankPattern: {},
  alphaPattern: {},
  layersToTransform: null,
  layersPattern: null,
  excludeModules: null,
  init: 'kaiming',
};

/** The expression that PEFT makes of a key of `rank_pattern` and `alpha_pattern`; it must match from a name's start. */
export function patternSource(key: string): string {
  return `(.*\\.)?(${key})$`;
}

/** The expression that PEFT makes of a word of `layers_pattern`; group idx is the layer's number. */
export function layerSource(word: string): string {
  return `(?:^|.*?\\.)${word}\\.(?P<idx>\\d+)\\.`;
}

/** Every spelling of every setting: `rank`, `r`; `dropout`, `lora_dropout`, `loraDropout`. */
const spellings = new Map<string, Setting>(
  settings.flatMap((setting) => {
    const snake = peftNames[setting];
    const camel = snake.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());
    return [setting, snake, camel].map((name): [string, Setting] => [name, setting]);
  }),
);

/**
 * Fills in PEFT's defaults and checks everything.
 *
 * @throws `ERR_ARGUMENT` with every fault: unknown settings (with the one that was probably meant), values out of range,
 * expressions that can't be used, combinations that PEFT refuses.
 * @example
 * ```ts
 * normalizeLoraConfig({ rank: 16, alpha: 32, targets: ['q_proj', 'v_proj'] }).dropout; // 0
 * ```
 */
export function normalizeLoraConfig(input: LoraConfig | Readonly<Record<string, unknown>> = {}): ResolvedLoraConfig {
  const { config, faults } = resolveLoraConfig(input);
  throwFaults('ERR_ARGUMENT', 'LoRA config', faults);
  return config;
}

/** As `normalizeLoraConfig`, but hands the faults back; each names the setting as `input` spelled it. */
export function resolveLoraConfig(input: object): { config: ResolvedLoraConfig; faults: string[] } {
  const faults: string[] = [];
  const config: ResolvedLoraConfig = { ...defaults };
  const spelled = new Map<Setting, string>();
  for (const [name, value] of Object.entries(input)) {
    const setting = spellings.get(name);
    if (!setting) {
      faults.push(unknownSetting(name));
    } else if (value !== undefined) {
      if (spelled.has(setting)) faults.push(`${name}: must be given once (it is also given as ${spelled.get(setting)})`);
      spelled.set(setting, name);
      const checked = checks[setting](value);
      if ('fault' in checked) faults.push(`${name}: ${checked.fault}`);
      else Object.assign(config, { [setting]: checked.value });
    }
  }
  const name = (setting: Setting) => spelled.get(setting) ?? setting;
  if (typeof config.targets === 'string') {
    // PEFT refuses these too, so an adapter saved with them could not be loaded.
    for (const setting of ['layersToTransform', 'layersPattern'] as const) {
      if (config[setting] !== null) faults.push(`${name(setting)}: needs a list as ${name('targets')} (it is ${show(config.targets)})`);
    }
  } else if (config.layersPattern !== null && config.layersPattern.length > 0 && config.layersToTransform === null) {
    faults.push(`${name('layersPattern')}: needs ${name('layersToTransform')} beside it`);
  }
  return { config, faults };
}

type Checked = { value: unknown } | { fault: string };
const must = (what: string, value: unknown): Checked => ({ fault: `must be ${what} (it is ${show(value)})` });

const checks: Record<Setting, (value: unknown) => Checked> = {
  rank: (value) => (isRank(value) ? { value } : must('a whole number of at least 1', value)),
  alpha: (value) => (isAlpha(value) ? { value } : must('a number other than 0', value)),
  targets: (value) => checkNames(value, 'a list of names, a regular expression or "all-linear"'),
  dropout: (value) => (typeof value === 'number' && value >= 0 && value < 1 ? { value } : must('at least 0 and below 1', value)),
  useRslora: (value) => (typeof value === 'boolean' ? { value } : must('true or false', value)),
  rankPattern: (value) => checkPattern(value, isRank, 'a whole number of at least 1'),
  alphaPattern: (value) => checkPattern(value, isAlpha, 'a number other than 0'),
  layersToTransform: (value) =>
    value === null || isLayer(value) || (Array.isArray(value) && value.every(isLayer))
      ? { value: Array.isArray(value) ? [...value] : value }
      : must('a layer number or a list of them, counted from 0', value),
  layersPattern: (value) => checkLayersPattern(value),
  excludeModules: (value) => checkNames(value, 'a list of names or a regular expression', 0),
  init: (value) => {
    if (value === 'kaiming' || value === 'gaussian') return { value };
    return value === true ? { value: 'kaiming' } : must('"kaiming" or "gaussian"', value);
  },
};

function isRank(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 1;
}

/** At 0 the adapter would do nothing and get no gradient. */
function isAlpha(value: unknown): value is number {
  return Number.isFinite(value) && value !== 0;
}

function isLayer(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

function isText(value: unknown): value is string {
  return typeof value === 'string' && value !== '';
}

function checkNames(value: unknown, what: string, atLeast = 1): Checked {
  if (value === null) return { value };
  if (Array.isArray(value)) return value.length >= atLeast && value.every(isText) ? { value: [...new Set(value)] } : must(what, value);
  if (!(value instanceof RegExp) && !isText(value)) return must(what, value);
  const python = value instanceof RegExp ? toPython(value) : { source: value };
  if ('fault' in python) return python;
  const translated = fromPython(python.source, 'full');
  return 'fault' in translated ? translated : { value: python.source };
}

function checkPattern(value: unknown, isValid: (entry: unknown) => boolean, what: string): Checked {
  if (value === null) return { value: {} };
  if (typeof value !== 'object' || Array.isArray(value)) return must('an object of expressions and numbers', value);
  const faults = Object.entries(value as object).flatMap(([key, entry]) => {
    const translated = fromPython(patternSource(key), 'start');
    return [...(isValid(entry) ? [] : [`${show(key)} must be ${what} (it is ${show(entry)})`]), ...('fault' in translated ? [translated.fault] : [])];
  });
  return faults.length > 0 ? { fault: faults.join('; ') } : { value: { ...value } };
}

function checkLayersPattern(value: unknown): Checked {
  if (value === null) return { value };
  const patterns = Array.isArray(value) ? value : [value];
  if (!patterns.every((pattern) => typeof pattern === 'string')) return must('a name or a list of names', value);
  const faults = patterns.flatMap((pattern) => {
    const translated = fromPython(layerSource(pattern), 'start');
    return 'fault' in translated ? [translated.fault] : [];
  });
  return faults.length > 0 ? { fault: faults.join('; ') } : { value: Array.isArray(value) ? [...value] : value };
}

function unknownSetting(name: string): string {
  const [nearest, distance] = [...spellings.keys()]
    .map((known): [string, number] => [known, editDistance(name.toLowerCase(), known.toLowerCase())])
    .reduce((best, next) => (next[1] < best[1] ? next : best));
  const meant = distance <= Math.max(1, Math.floor(name.length / 3)) ? `did you mean ${nearest}?` : `known are ${settings.join(', ')}`;
  return `${name}: is no setting of an adapter (${meant})`;
}

/** Levenshtein's: letters to insert, delete or change. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      next[j] = Math.min(next[j - 1]! + 1, row[j]! + 1, row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1));
    }
    row = next;
  }
  return row[b.length]!;
}

function show(value: unknown): string {
  const text = value instanceof RegExp || typeof value === 'number' || value === undefined ? String(value) : JSON.stringify(value);
  return text.length > 80 ? `${text.slice(0, 80)}…` : text;
}
