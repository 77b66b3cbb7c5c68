import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { LowrankError, throwFaults } from '../error.ts';

export type Json = Readonly<Record<string, unknown>>;

export function isObject(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

export interface WholeRange {
  readonly min?: number; // 1 unless given
  /** What an absent key or null means; without it the key is required. */
  readonly fallback?: number;
}

/**
 * Reads settings of one JSON object and notes what is wrong with them, so that one error can tell it all: `finish` throws it.
 * After a fault a harmless value is returned.
 */
export class ConfigReader {
  readonly file: string;
  readonly json: Json;
  readonly #notes: { faults: string[]; refused: boolean };
  readonly #prefix: string;

  constructor(file: string, json: Json, parent?: { of: ConfigReader; key: string }) {
    this.file = file;
    this.json = json;
    this.#notes = parent === undefined ? { faults: [], refused: false } : parent.of.#notes;
    this.#prefix = parent === undefined ? '' : `${parent.of.#prefix}${parent.key}.`;
  }
  /** A reader of the object that `key` holds ({} where it holds none); its faults are told with this one's. */
  inner(key: string): ConfigReader {
    const value = this.get(key);
    if (value !== null && !isObject(value)) this.fault(`${this.quoted(key)} must be an object (${shown(value)})`);
    return new ConfigReader(this.file, isObject(value) ? value : {}, { of: this, key });
  }
  /** The key as errors name it. */
  quoted(key: string): string {
    return `"${this.#prefix}${key}"`;
  }
  /** Notes a setting that can't be right. */
  fault(text: string): void {
    this.#notes.faults.push(text);
  }
  /** Notes a setting that may be right but isn't supported. */
  refuse(text: string): void {
    this.#notes.refused = true;
    this.#notes.faults.push(text);
  }
  /** @throws LowrankError ERR_UNSUPPORTED if something was refused, else ERR_FORMAT; with every fault noted */
  finish(): void {
    throwFaults(this.#notes.refused ? 'ERR_UNSUPPORTED' : 'ERR_FORMAT', this.file, this.#notes.faults);
  }
  /** The value of a key; null stands for absent. */
  get(key: string): unknown {
    return Object.hasOwn(this.json, key) ? (this.json[key] ?? null) : null;
  }
  has(key: string): boolean {
    return this.get(key) !== null;
  }
  whole(key: string, { min = 1, fallback }: WholeRange = {}): number {
    const value = this.get(key);
    if (value === null && fallback !== undefined) return fallback;
    if (Number.isSafeInteger(value) && (value as number) >= min) return value as number;
    this.fault(`${this.quoted(key)} must be a whole number of at least ${min} (${shown(value)})`);
    return min;
  }
  /** A finite number above zero. */
  positive(key: string, fallback?: number): number {
    const value = this.get(key);
    if (value === null && fallback !== undefined) return fallback;
    if (typeof value === 'number' && Number.isFinite(value) && value > 0) return value;
    this.fault(`${this.quoted(key)} must be a number above 0 (${shown(value)})`);
    return 1;
  }
  flag(key: string, fallback: boolean): boolean {
    const value = this.get(key);
    if (value === null) return fallback;
    if (typeof value === 'boolean') return value;
    this.fault(`${this.quoted(key)} must be true or false (${shown(value)})`);
    return fallback;
  }
  text(key: string, fallback: string): string {
    const value = this.get(key);
    if (value === null) return fallback;
    if (typeof value === 'string') return value;
    this.fault(`${this.quoted(key)} must be a string (${shown(value)})`);
    return fallback;
  }
  /** Refuses every value but `only` (absent is right too). */
  mustBe(key: string, only: unknown, why = ''): void {
    const value = this.get(key);
    if (value !== null && value !== only) this.refuse(`${this.quoted(key)} must be ${JSON.stringify(only)} (${shown(value)}${why})`);
  }
}

/** A value as an error tells it. */
export function shown(value: unknown): string {
  if (value === null || value === undefined) return 'it is missing';
  const text = JSON.stringify(value);
  return `it is ${text.length > 60 ? `${text.slice(0, 57)}...` : text}`;
}

/** config.json of a model folder. @throws LowrankError ERR_FILE, ERR_FORMAT */
export async function readModelConfig(folder: string): Promise<ConfigReader> {
  const file = path.join(folder, 'config.json');
  const text = await readFile(file, 'utf8').catch((cause: unknown) => {
    const code = (cause as NodeJS.ErrnoException).code ?? String(cause);
    throw new LowrankError('ERR_FILE', `${file}: must be readable; a Hugging Face model folder has one (${code})`, { cause });
  });
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (cause) {
    throw new LowrankError('ERR_FORMAT', `${file}: must be JSON (${(cause as Error).message})`, { cause });
  }
  if (!isObject(json)) throw new LowrankError('ERR_FORMAT', `${file}: must be a JSON object (found ${Array.isArray(json) ? 'an array' : String(json)})`);
  return new ConfigReader(file, json);
}
