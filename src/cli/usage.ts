import { InvalidArgumentError } from 'commander';

/** The command line itself is wrong: exit status 2. */
export class UsageError extends Error {}

/** A whole number of at least `least`, written in digits. */
export function wholeNumber(least: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (/^\d+$/.test(text.trim()) && Number.isSafeInteger(value) && value >= least) return value;
    throw new InvalidArgumentError(`It must be a whole number of at least ${least}.`);
  };
}

/** A number of bytes: in digits, or with K, M or G for 1024, 1024² or 1024³ of them. */
export function byteCount(text: string): number {
  const match = /^(\d+(?:\.\d+)?)([KMG]?)$/i.exec(text.trim());
  const value = match === null ? NaN : Math.floor(Number(match[1]) * 1024 ** ' KMG'.indexOf((match[2] ?? '').toUpperCase() || ' '));
  if (Number.isSafeInteger(value) && value > 0) return value;
  throw new InvalidArgumentError('It must be a number of bytes, as 6000000000, 900M or 5.5G.');
}

/** `auto`, `all`, or a number of bytes. */
export function weightMemory(text: string): number | 'auto' | 'all' {
  return text === 'auto' || text === 'all' ? text : byteCount(text);
}

/** A number within bounds; `above` leaves the bound itself out. */
export function number(bounds: { least?: number; above?: number; below?: number; most?: number }): (text: string) => number {
  const { least, above, below, most } = bounds;
  const words = [
    least === undefined ? [] : [`at least ${least}`],
    above === undefined ? [] : [`above ${above}`],
    below === undefined ? [] : [`below ${below}`],
    most === undefined ? [] : [`at most ${most}`],
  ].flat().join(' and ');
  return (text) => {
    const value = text.trim() === '' ? NaN : Number(text);
    const fits = Number.isFinite(value) && value >= (least ?? -Infinity) && value > (above ?? -Infinity) && value < (below ?? Infinity) && value <= (most ?? Infinity);
    if (fits) return value;
    throw new InvalidArgumentError(`It must be a number ${words}.`);
  };
}

/** Two decays, `0.9,0.999`. */
export function betaPair(text: string): [number, number] {
  const values = text.split(',').map(number({ least: 0, below: 1 }));
  if (values.length === 2) return values as [number, number];
  throw new InvalidArgumentError('It must be two numbers with a comma between them, as 0.9,0.999.');
}

/** `q_proj,v_proj` is a list of names, `all-linear` a word, and what has signs of an expression is one. */
export function targetList(text: string): string[] | string {
  if (/[\\*+?()[\]{}|^$]/.test(text) || text.toLowerCase() === 'all-linear') return text;
  const names = text.split(',').map((name) => name.trim()).filter((name) => name !== '');
  if (names.length > 0) return names;
  throw new InvalidArgumentError('It must be names with commas between them, a regular expression, or all-linear.');
}

/** Refuses options that contradict one another: each rule is a pair of flags and the reason. */
export function refuseTogether(options: object, rules: readonly (readonly [string, string, string])[]): void {
  const given = new Set(Object.entries(options).flatMap(([name, value]) => (value === undefined || value === false ? [] : [name])));
  const faults = rules.filter(([a, b]) => given.has(a) && given.has(b)).map(([a, b, why]) => `${flag(a)} and ${flag(b)} can't stand together: ${why}`);
  if (faults.length > 0) throw new UsageError(faults.join('\n'));
}

/** `batchSize` as it is typed. */
export function flag(name: string): string {
  return `--${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
}

/**
 * Refuses a command line without flags that it must have. Commander's own check would come before that for unknown flags, and
 * `--modl x` would be told that `--model` is missing instead of what was probably meant.
 */
export function requireFlags(options: object, names: readonly string[]): void {
  const missing = names.filter((name) => (options as Record<string, unknown>)[name] === undefined).map(flag);
  if (missing.length > 0) throw new UsageError(`${missing.join(' and ')} must be given (add --help for the flags)`);
}
