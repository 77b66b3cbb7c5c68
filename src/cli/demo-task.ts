import { readFileSync } from 'node:fs';
import { z } from 'zod';
import type { Tokenizer } from '../data/tokenizer.ts';
import { LowrankError } from '../error.ts';
import { generate } from '../generation/generate.ts';
import type { Model } from '../models/model.ts';
import { scheduleKinds } from '../optim/schedule.ts';
import { idsOf } from './generate.ts';

const settings = z.object({
  rank: z.number(), alpha: z.number(), targets: z.union([z.string(), z.array(z.string())]), dropout: z.number().default(0),
  lr: z.number(), schedule: z.enum(scheduleKinds as [string, ...string[]]), warmup: z.number(), steps: z.number(), batchSize: z.number(), seqLength: z.number(),
  maxGradNorm: z.number().default(1), weightDecay: z.number().default(0), maxNewTokens: z.number().default(64), seed: z.number(),
  prompts: z.array(z.string()).min(1),
});

/** `demo.json`: the run and what it is asked. */
export type DemoSettings = z.infer<typeof settings>;

/** @throws LowrankError ERR_FILE, ERR_FORMAT */
export function readDemoSettings(file: string): DemoSettings {
  const parsed = settings.safeParse(readJson(file));
  if (parsed.success) return parsed.data;
  throw new LowrankError('ERR_FORMAT', `${file}: ${parsed.error.issues.map(({ path, message }) => `${path.join('.')}: ${message}`).join('; ')}`);
}

function readJson(file: string): unknown {
  try {
    return JSON.parse(readFileSync(file, 'utf8'));
  } catch (cause) {
    throw new LowrankError('ERR_FILE', `${file}: must be there and be JSON (${(cause as Error).message})`, { cause });
  }
}

/** A row of the held-out data: the text that is generated must contain every fact. */
export interface FactRow {
  readonly prompt: string;
  readonly completion: string;
  readonly facts: readonly string[];
}

/** `most` rows, evenly spread over the file. @throws LowrankError ERR_FILE */
export function readFactRows(file: string, most: number): FactRow[] {
  let rows: FactRow[];
  try {
    rows = readFileSync(file, 'utf8').split('\n').filter((line) => line.trim() !== '').map((line) => JSON.parse(line) as FactRow);
  } catch (cause) {
    throw new LowrankError('ERR_FILE', `${file}: must be there and hold a JSON object a line (${(cause as Error).message})`, { cause });
  }
  const stride = Math.max(1, Math.floor(rows.length / most));
  return rows.filter((_, i) => i % stride === 0).slice(0, most);
}

/** A model that is asked. */
export interface Asked {
  readonly model: Model;
  readonly tokenizer: Tokenizer;
  readonly maxTokens: number;
}

/** The greedy continuation of a prompt, to the end of its line. */
export async function answer({ model, tokenizer, maxTokens }: Asked, prompt: string): Promise<string> {
  let text = '';
  for await (const piece of generate(model, tokenizer, idsOf(tokenizer, prompt, false), { maxTokens, stop: ['\n'] })) text += piece.text;
  return text.trim();
}

/** The share of rows whose answer contains all facts, word for word. */
export async function exactShare(asked: Asked, rows: readonly FactRow[]): Promise<number> {
  let exact = 0;
  for (const { prompt, facts } of rows) {
    const text = await answer(asked, prompt);
    if (facts.every((fact) => text.includes(fact))) exact += 1;
  }
  return exact / rows.length;
}
