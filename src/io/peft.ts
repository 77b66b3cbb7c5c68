import { access, mkdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import { LowrankError } from '../error.ts';
import type { ResolvedLoraConfig } from '../lora/config.ts';
import { recoverFolder, writeFileAtomic } from './atomic.ts';
import { parseAdapterConfig, serializeAdapterConfig, type AdapterConfigExtra, type AdapterConfigFile } from './peft-config.ts';
import { adapterKey, groupAdapterKeys, type LoraPart } from './peft-keys.ts';
import { parseSafetensorsHeader, type SafetensorsTensor } from './safetensors.ts';
import { writeSafetensors } from './safetensors-write.ts';

const tensorsName = 'adapter_model.safetensors';
const configName = 'adapter_config.json';
const cardName = 'README.md';

/** A or B of a layer as bytes of f32. */
export interface MatrixBytes {
  readonly shape: readonly number[]; // A [r, K], B [N, r]
  readonly data: Uint8Array;
}

/** One layer of an adapter about to be written. */
export interface LayerBytes extends Readonly<Record<LoraPart, MatrixBytes>> {
  readonly name: string;
}

export interface AdapterContent {
  readonly config: ResolvedLoraConfig;
  readonly kept: Readonly<Record<string, unknown>>;
  readonly extra: AdapterConfigExtra;
  readonly layers: readonly LayerBytes[];
}

/**
 * Writes an adapter as PEFT's `save_pretrained` does: tensors byte for byte, the config with all keys, and a model card where
 * there is none. The folder is made if need be; each file is replaced as a whole, and other files stay.
 *
 * @throws LowrankError ERR_FILE
 */
export async function savePeftFolder(folder: string, { config, kept, extra, layers }: AdapterContent): Promise<void> {
  await mkdir(folder, { recursive: true }).catch((cause: unknown) => {
    throw new LowrankError('ERR_FILE', `${folder}: must be a folder that can be made (${(cause as NodeJS.ErrnoException).code})`, { cause });
  });
  const entries = layers.flatMap((layer) => (['A', 'B'] as const).map((part) => ({ name: adapterKey(layer.name, part), dtype: 'F32' as const, ...layer[part] })));
  await writeSafetensors(path.join(folder, tensorsName), entries, { format: 'pt' });
  await writeFileAtomic(path.join(folder, configName), serializeAdapterConfig(config, kept, extra));
  const card = path.join(folder, cardName);
  if (!(await exists(card))) await writeFileAtomic(card, modelCard(extra.baseModelNameOrPath ?? null));
}

function modelCard(base: string | null): string {
  const front = ['library_name: peft', 'pipeline_tag: text-generation', 'tags:', ...(base === null ? [] : [`- ${JSON.stringify(`base_model:adapter:${base}`)}`]), '- lora', '- lowrank'];
  const name = base === null ? 'its base model' : `\`${base}\``;
  return `---
${base === null ? '' : `base_model: ${JSON.stringify(base)}\n`}${front.join('\n')}
---

# LoRA adapter

A low-rank adapter for ${name}, trained with lowrank and stored in PEFT's format.

\`\`\`python
from peft import PeftModel
from transformers import AutoModelForCausalLM

base = AutoModelForCausalLM.from_pretrained(${JSON.stringify(base ?? 'BASE')})
model = PeftModel.from_pretrained(base, "THIS_FOLDER")
\`\`\`

\`\`\`ts
import { loadAdapter, loadModel, openDevice } from 'lowrank';

const model = await loadModel(${JSON.stringify(base ?? 'BASE')}, { device: await openDevice('auto') });
const adapter = await loadAdapter(model, 'THIS_FOLDER');
\`\`\`
`;
}

/** A or B of a layer as it lies in a file. */
export interface StoredMatrix {
  readonly key: string;
  readonly dtype: SafetensorsTensor['dtype'];
  readonly shape: readonly number[];
  readonly data: Uint8Array;
}

/** An adapter folder, read and found well-formed; whether it fits a model is another question. */
export interface AdapterFolder extends AdapterConfigFile {
  /** The tensors' file, for errors. */
  readonly file: string;
  readonly layers: ReadonlyMap<string, Readonly<Record<LoraPart, StoredMatrix>>>;
}

/**
 * Reads a PEFT folder.
 *
 * @throws LowrankError ERR_FILE, ERR_FORMAT and ERR_UNSUPPORTED, each with all faults of its file.
 */
export async function readPeftFolder(folder: string): Promise<AdapterFolder> {
  await recoverFolder(folder);
  const configFile = path.join(folder, configName);
  const text = await readFile(configFile, 'utf8').catch((cause: unknown) => cantRead(configFile, cause));
  const config = parseAdapterConfig(text, configFile);
  const file = path.join(folder, tensorsName);
  const bytes = await readFile(file).catch(async (cause: unknown) => cantRead(file, cause, await onlyPickle(folder)));
  const { tensors } = parseSafetensors(file, bytes);
  const stored = (key: string): StoredMatrix => {
    const { dtype, shape, begin, end } = tensors.get(key) as SafetensorsTensor;
    return { key, dtype, shape, data: bytes.subarray(begin, end) };
  };
  const layers = [...groupAdapterKeys(tensors.keys(), file)].map(([name, { A, B }]) => [name, { A: stored(A), B: stored(B) }] as const);
  return { ...config, file, layers: new Map(layers) };
}

function parseSafetensors(file: string, bytes: Buffer): ReturnType<typeof parseSafetensorsHeader> {
  const length = bytes.length < 8 ? -1n : bytes.readBigUInt64LE(0);
  if (length < 0n || length > BigInt(bytes.length - 8)) {
    throw new LowrankError('ERR_FORMAT', `${file}: must hold a header of the length that its first 8 bytes give (the file has ${bytes.length} bytes${length < 0n ? '' : `, the header ${length}`})`);
  }
  return parseSafetensorsHeader(file, bytes.subarray(8, 8 + Number(length)), bytes.length);
}

async function onlyPickle(folder: string): Promise<string> {
  const pickle = await exists(path.join(folder, 'adapter_model.bin'));
  return pickle ? '; adapter_model.bin is a Python pickle, which PEFT rewrites with save_pretrained(…, safe_serialization=True)' : '';
}

function cantRead(file: string, cause: unknown, hint = ''): never {
  throw new LowrankError('ERR_FILE', `${file}: can't be read (${(cause as NodeJS.ErrnoException).code ?? cause}${hint})`, { cause });
}

async function exists(file: string): Promise<boolean> {
  return access(file).then(() => true, () => false);
}
