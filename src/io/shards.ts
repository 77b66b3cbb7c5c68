import { readFile, readdir } from 'node:fs/promises';
import path from 'node:path';
import { LowrankError, throwFaults } from '../error.ts';
import { readSafetensorsHeader, type SafetensorsFile, type SafetensorsTensor } from './safetensors.ts';

/** A tensor together with the file that holds it. */
export interface ShardedTensor extends SafetensorsTensor {
  file: string;
}

/** The weights of a Hugging Face folder, whether they lie in one file or in many. */
export interface Shards {
  folder: string;
  /** The safetensors files, absolute or as `folder` was given, in the order of their names. */
  files: string[];
  tensors: Map<string, ShardedTensor>;
}

const singleName = 'model.safetensors';
const indexName = 'model.safetensors.index.json';

/**
 * Finds a folder's weights and reads every header: `model.safetensors`, or the shards that
 * `model.safetensors.index.json` names (the single file wins, as in transformers).
 *
 * @throws `ERR_FILE` if there are no safetensors weights, `ERR_FORMAT` with every shard that is missing or damaged and
 * every weight that isn't where the index says.
 * @example
 * ```ts
 * const { tensors } = await openShards('./SmolLM-135M');
 * tensors.get('model.norm.weight')?.file; // './SmolLM-135M/model.safetensors'
 * ```
 */
export async function openShards(folder: string): Promise<Shards> {
  const names = await readdir(folder).catch((cause: unknown) => {
    throw new LowrankError('ERR_FILE', `${folder}: can't be read as a folder (${(cause as NodeJS.ErrnoException).code ?? cause})`, { cause });
  });
  if (names.includes(singleName)) return fromSingle(folder);
  if (names.includes(indexName)) return fromIndex(folder, names);
  throw new LowrankError('ERR_FILE', `${folder}: must hold ${singleName} or ${indexName} (${whatInstead(names)})`);
}

async function fromSingle(folder: string): Promise<Shards> {
  const file = path.join(folder, singleName);
  const header = await readSafetensorsHeader(file);
  return { folder, files: [file], tensors: new Map(located(header)) };
}

function located({ file, tensors }: SafetensorsFile): [string, ShardedTensor][] {
  return [...tensors].map(([name, tensor]) => [name, { ...tensor, file }]);
}

async function fromIndex(folder: string, names: readonly string[]): Promise<Shards> {
  const indexFile = path.join(folder, indexName);
  const weightMap = readWeightMap(indexFile, await readFile(indexFile, 'utf8'));
  const shards = [...new Set(weightMap.values())].sort();
  const faults = shards.filter((shard) => !names.includes(shard)).map((shard) => missingShard(shard, weightMap));
  const headers = new Map<string, SafetensorsFile>();
  for (const shard of shards.filter((name) => names.includes(name))) {
    await readSafetensorsHeader(path.join(folder, shard)).then(
      (header) => headers.set(shard, header),
      (fault: unknown) => faults.push(fault instanceof LowrankError ? fault.message : String(fault)),
    );
  }
  compareWithIndex(weightMap, headers, faults);
  throwFaults('ERR_FORMAT', indexFile, faults);
  return {
    folder,
    files: [...headers.values()].map(({ file }) => file),
    tensors: new Map([...headers.values()].flatMap(located)),
  };
}

function readWeightMap(file: string, text: string): Map<string, string> {
  const fault = (what: string) => new LowrankError('ERR_FORMAT', `${file}: ${what}`);
  let parsed: { weight_map?: unknown } | null;
  try {
    parsed = JSON.parse(text) as { weight_map?: unknown } | null;
  } catch (cause) {
    throw fault(`must be JSON (${(cause as Error).message})`);
  }
  const map = parsed?.weight_map;
  if (typeof map !== 'object' || map === null || Array.isArray(map)) throw fault('must have an object "weight_map"');
  const faults: string[] = [];
  for (const [weight, shard] of Object.entries(map as Record<string, unknown>)) {
    // A path would let an index point outside of its folder.
    if (typeof shard !== 'string' || path.basename(shard) !== shard || shard.includes('\\') || shard === '..' || shard === '') {
      faults.push(`"${weight}" must name a file of this folder (it is ${JSON.stringify(shard)})`);
    }
  }
  if (Object.keys(map).length === 0) faults.push('"weight_map" must name at least one weight');
  throwFaults('ERR_FORMAT', file, faults);
  return new Map(Object.entries(map as Record<string, string>));
}

function missingShard(shard: string, weightMap: Map<string, string>): string {
  const weights = [...weightMap].filter(([, file]) => file === shard).map(([weight]) => weight);
  return `"${shard}" is missing; ${shortList(weights)} should be in it`;
}

/** Every weight must be in the shard that the index gives, and every tensor of a shard in the index. */
function compareWithIndex(weightMap: Map<string, string>, headers: Map<string, SafetensorsFile>, faults: string[]): void {
  for (const [shard, { tensors }] of headers) {
    const absent = [...weightMap].filter(([weight, file]) => file === shard && !tensors.has(weight)).map(([weight]) => weight);
    if (absent.length > 0) faults.push(`"${shard}" lacks ${shortList(absent)}`);
    const extra = [...tensors.keys()].filter((weight) => weightMap.get(weight) !== shard);
    const twice = extra.filter((weight) => weightMap.has(weight));
    if (twice.length > 0) faults.push(`"${shard}" holds ${shortList(twice)}, which the index places elsewhere`);
    const unknown = extra.filter((weight) => !weightMap.has(weight));
    if (unknown.length > 0) faults.push(`"${shard}" holds ${shortList(unknown)}, which the index doesn't name`);
  }
}

function shortList(names: readonly string[]): string {
  const shown = names.slice(0, 3).map((name) => `"${name}"`).join(', ');
  return names.length > 3 ? `${shown} and ${names.length - 3} more` : shown;
}

function whatInstead(names: readonly string[]): string {
  const torch = names.find((name) => /^pytorch_model.*\.bin(\.index\.json)?$/.test(name));
  if (torch) {
    return `it has only ${torch}, a Python pickle; convert it once, where transformers is installed, with: python -c "from transformers import `
      + `AutoModelForCausalLM as M; M.from_pretrained('.', dtype='auto').save_pretrained('.', safe_serialization=True)"`;
  }
  const other = names.find((name) => name.endsWith('.safetensors'));
  if (other) return `it has ${other}; rename it to ${singleName} if it is the whole model`;
  if (names.some((name) => name.endsWith('.gguf'))) return 'it has a GGUF file; lowrank reads Hugging Face folders';
  return names.length === 0 ? 'it is empty' : `it has ${shortList(names)}`;
}
