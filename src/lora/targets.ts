import { LowrankError, throwFaults } from '../error.ts';
import { fromPython, type Anchor } from '../io/python-regex.ts';
import { layerSource, patternSource, peftNames, type ResolvedLoraConfig } from './config.ts';

/** The adapter of one layer. */
export interface LayerLora {
  rank: number;
  alpha: number;
  /** What the update is multiplied by: alpha / rank, or alpha / √rank with rsLoRA. */
  scale: number;
}

/** What target selection has to know of a model. */
export interface TargetContext {
  /** The layer that makes logits, which `'all-linear'` leaves out; null if it isn't among the names. */
  outputHead: string | null;
  /** Used when the config names no targets. */
  defaultTargets?: readonly string[];
  /** Modules that take no adapter, and what each is: a config that selects one of them is refused. */
  others?: ReadonlyMap<string, string>;
}

/**
 * Decides as PEFT does which of a model's linear layers get an adapter, and of what rank.
 *
 * @param names every linear layer of the model, by its full name.
 * @throws `ERR_ARGUMENT` if nothing matches, with the names there are; `ERR_UNSUPPORTED` with each of `others` that is selected.
 * @example
 * ```ts
 * const config = normalizeLoraConfig({ targets: ['q_proj'], rank: 4, alpha: 8 });
 * selectTargets(['layers.0.q_proj', 'lm_head'], config, { outputHead: 'lm_head' });
 * // Map { 'layers.0.q_proj' → { rank: 4, alpha: 8, scale: 2 } }
 * ```
 */
export function selectTargets(names: readonly string[], config: ResolvedLoraConfig, context: TargetContext): Map<string, LayerLora> {
  const excluded = nameTest(config.excludeModules ?? []);
  const targeted = targetTest(names, config, context);
  throwFaults('ERR_UNSUPPORTED', 'LoRA config', refusals([...(context.others ?? [])].filter(([name]) => targeted(name) && !excluded(name))));
  const ranks = patternLookup(config.rankPattern, config.rank);
  const alphas = patternLookup(config.alphaPattern, config.alpha);
  const selected = new Map<string, LayerLora>();
  for (const name of names) {
    if (excluded(name) || !targeted(name)) continue;
    const [rank, alpha] = [ranks(name), alphas(name)];
    selected.set(name, { rank, alpha, scale: alpha / (config.useRslora ? Math.sqrt(rank) : rank) });
  }
  if (selected.size === 0) throw noMatch(names, config, targeted);
  return selected;
}

/** One sentence for all modules of a kind. */
function refusals(hit: readonly (readonly [string, string])[]): string[] {
  const kinds = new Map<string, string[]>();
  for (const [name, what] of hit) kinds.set(what, [...(kinds.get(what) ?? []), name]);
  return [...kinds].map(([what, [first, ...rest]]) => `targets must be linear layers (${first}${rest.length > 0 ? `, as ${rest.length} more,` : ''} is ${what})`);
}

type NameTest = (name: string) => boolean;

function compile(source: string, anchor: Anchor): RegExp {
  const result = fromPython(source, anchor);
  if ('fault' in result) throw new LowrankError('ERR_ARGUMENT', `LoRA config: ${result.fault}`);
  return result.regex;
}

/** A list matches whole names and ends of names at a dot, a string is an expression for whole names. */
function nameTest(wanted: readonly string[] | string): NameTest {
  if (typeof wanted === 'string') {
    const regex = compile(wanted, 'full');
    return (name) => regex.test(name);
  }
  const whole = new Set(wanted);
  return (name) => {
    if (whole.has(name)) return true;
    for (let dot = name.indexOf('.'); dot >= 0; dot = name.indexOf('.', dot + 1)) if (whole.has(name.slice(dot + 1))) return true;
    return false;
  };
}

function targetTest(names: readonly string[], config: ResolvedLoraConfig, { outputHead, defaultTargets }: TargetContext): NameTest {
  const targets = config.targets ?? defaultTargets;
  if (!targets) throw new LowrankError('ERR_ARGUMENT', 'LoRA config: targets must be given, for this model has no usual ones');
  // As in PEFT the word stands for the list of all names but the head's.
  if (isAllLinear(targets)) return nameTest(names.filter((name) => name !== outputHead));
  const matches = nameTest(targets);
  const { layersToTransform: layers } = config;
  if (typeof targets === 'string' || layers === null || (Array.isArray(layers) && layers.length === 0)) return matches;
  const whole = new Set(targets);
  const wanted = new Set([layers].flat());
  const layerOf = layerNumber(config.layersPattern);
  // A target that is a whole name is taken whatever its layer: PEFT looks at the number only for ends of names.
  return (name) => whole.has(name) || (matches(name) && wanted.has(layerOf(name)));
}

function isAllLinear(targets: readonly string[] | string): boolean {
  return typeof targets === 'string' && targets.toLowerCase() === 'all-linear';
}

/** The first number behind one of the patterns, or behind any word; -1 if there is none. Expressions as PEFT builds them. */
function layerNumber(pattern: string[] | string | null): (name: string) => number {
  const patterns = pattern === null || pattern.length === 0 ? null : [pattern].flat();
  const sources = patterns ? patterns.map(layerSource) : ['.*?\\.[^.]*\\.(?P<idx>\\d+)\\.'];
  const regexes = sources.map((source) => compile(source, 'start'));
  return (name) => {
    for (const regex of regexes) {
      const match = regex.exec(name);
      if (match) return Number(match.groups?.['idx'] ?? -1);
    }
    return -1;
  };
}

/** `re.match(rf"(.*\.)?({key})$", name)` over the keys in order; the first hit's value. */
function patternLookup(pattern: Readonly<Record<string, number>>, otherwise: number): (name: string) => number {
  const entries = Object.entries(pattern).map(([key, value]) => ({ regex: compile(patternSource(key), 'start'), value }));
  return (name) => entries.find(({ regex }) => regex.test(name))?.value ?? otherwise;
}

/**
 * The shortest list of names that selects exactly `selected` out of `names`: what a saved config says in place of
 * `'all-linear'`, so that other programs understand it. Last words (`'q_proj'`) where they single out, else full names.
 */
export function minimalTargets(names: readonly string[], selected: ReadonlySet<string>): string[] {
  const lastWord = (name: string) => name.slice(name.lastIndexOf('.') + 1);
  const others = new Set(names.filter((name) => !selected.has(name)).map(lastWord));
  return [...new Set(names.filter((name) => selected.has(name)).map((name) => (others.has(lastWord(name)) ? name : lastWord(name))))];
}

function noMatch(names: readonly string[], config: ResolvedLoraConfig, targeted: NameTest): LowrankError {
  const asked = JSON.stringify(config.targets);
  if (names.some(targeted)) return new LowrankError('ERR_ARGUMENT', `LoRA config: excludeModules leaves none of the layers that targets selects (${asked})`);
  const hint = hintFor(names, config);
  return new LowrankError('ERR_ARGUMENT', `LoRA config: targets must match a linear layer (${asked} matches none${hint}; there are ${available(names)})`);
}

function hintFor(names: readonly string[], { targets, layersToTransform }: ResolvedLoraConfig): string {
  if (typeof targets === 'string' && !isAllLinear(targets)) {
    const found = names.some((name) => compile(`.*(?:${targets.replace(/^\(\?[a-zA-Z]+\)/, '')})`, 'start').test(name));
    return found ? ', for an expression must match a whole name: begin it with ".*"' : '';
  }
  return layersToTransform === null ? '' : ` in the layers of ${peftNames.layersToTransform}`;
}

/** `model.layers.{0…29}.mlp.up_proj`: names that differ only in numbers are told once. */
function available(names: readonly string[]): string {
  const shapes = new Map<string, { numbers: number[]; name: string }>();
  for (const name of names) {
    const shape = name.replace(/\d+/, '#');
    const entry = shapes.get(shape) ?? { numbers: [], name };
    const number = /\d+/.exec(name);
    if (number) entry.numbers.push(Number(number[0]));
    shapes.set(shape, entry);
  }
  const told = [...shapes].map(([shape, { numbers, name }]) =>
    numbers.length > 1 ? shape.replace('#', `{${numbers.reduce((a, b) => Math.min(a, b))}…${numbers.reduce((a, b) => Math.max(a, b))}}`) : name,
  );
  if (told.length === 0) return 'no linear layers at all';
  return told.length > 12 ? `${told.slice(0, 12).join(', ')} and ${told.length - 12} more` : told.join(', ');
}
