import { existsSync } from 'node:fs';
import path from 'node:path';
import { loadTokenizer, type Tokenizer } from '../data/tokenizer.ts';
import { type ActivationDtype, openDevice, type Device, type MatmulPrecision } from '../device.ts';
import { LowrankError } from '../error.ts';
import { loadModel } from '../models/load.ts';
import type { Model, ModelFacts } from '../models/model.ts';
import { bytes } from './format.ts';

export interface SessionOptions {
  readonly model: string;
  readonly device: string;
  readonly matmulPrecision?: MatmulPrecision | undefined;
  readonly activations?: ActivationDtype | undefined;
  readonly weights?: 'f16' | 'bf16' | 'f32' | undefined;
  readonly weightMemory?: number | 'auto' | 'all' | undefined;
  /** Bytes that the verb's work needs beside the weights. */
  readonly reserve?: ((facts: ModelFacts, device: Device) => number) | undefined;
}

/** A device with a model on it, and the model's tokenizer if it has one. */
export interface Session {
  readonly device: Device;
  readonly model: Model;
  readonly tokenizer: Tokenizer | null;
  [Symbol.asyncDispose](): Promise<void>;
}

/** Opens what most verbs need. @throws LowrankError */
export async function openSession({ model: folder, device: name, weights, matmulPrecision, activations, weightMemory, reserve }: SessionOptions): Promise<Session> {
  if (!existsSync(folder)) throw new LowrankError('ERR_FILE', `${folder}: must be a Hugging Face model folder (not found)`);
  const tokenizer = await tokenizerOf(folder);
  const device = await openDevice(name, given({ matmulPrecision, activations, weightMemory }));
  try {
    const model = await loadModel(folder, { device, ...given({ weights, reserve: reserve && ((facts: ModelFacts) => reserve(facts, device)) }) });
    const turns = device.choosesWeightMemory ? device.info.weightMemory : 0;
    if (turns > 0) process.stderr.write(`not all weights fit in the ${bytes(device.info.freeMemory)} that are free: they take turns in ${bytes(turns)} (--weight-memory says otherwise)\n`);
    return {
      device,
      model,
      tokenizer,
      async [Symbol.asyncDispose]() {
        model.dispose();
        device.close();
      },
    };
  } catch (error) {
    device.close();
    throw error;
  }
}

/** Null when the folder has no tokenizer at all; data that is tokenised already needs none. */
async function tokenizerOf(folder: string): Promise<Tokenizer | null> {
  const files = ['tokenizer.json', 'vocab.json', 'tokenizer.model', 'vocab.txt'];
  return files.some((file) => existsSync(path.join(folder, file))) ? loadTokenizer(folder) : null;
}

/** The tokenizer, or an error that says what it is needed for. @throws LowrankError ERR_FILE */
export function needTokenizer({ tokenizer, model }: Session, purpose: string): Tokenizer {
  if (tokenizer !== null) return tokenizer;
  throw new LowrankError('ERR_FILE', `${model.facts.folder}: must hold tokenizer.json ${purpose} (found none)`);
}

/** Without what is undefined: an option that was not given has its default. */
function given<T extends object>(options: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as { [K in keyof T]?: Exclude<T[K], undefined> };
}
