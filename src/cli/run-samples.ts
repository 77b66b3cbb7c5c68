import type { Dataset } from '../data/dataset.ts';
import { IGNORE, type Sample } from '../data/sample.ts';
import type { Tokenizer } from '../data/tokenizer.ts';
import { generate } from '../generation/generate.ts';
import { activeAdapter, setAdapter } from '../lora/model-adapters.ts';
import type { Model } from '../models/model.ts';
import type { ReportSample } from '../train/report.ts';

const shownRows = 3;
/** Tokens of an answer. */
const answerTokens = 48;
/** Tokens of a text without a prompt that stand for one. */
const openingTokens = 16;
/** A big model may need this long for the first row; what isn't written by then is left out. */
const mostMilliseconds = 30_000;

export interface SampleParts {
  readonly model: Model;
  readonly tokenizer: Tokenizer;
  /** Where the prompts come from: `shownRows`, evenly spread. */
  readonly dataset: Dataset;
  readonly signal: AbortSignal;
}

/**
 * What the model writes without and with its active adapter, beside what the data says. Greedy. Rows that the signal or the
 * time cut off are left out.
 *
 * @throws LowrankError ERR_NONFINITE
 */
export async function writeSamples({ model, tokenizer, dataset, signal }: SampleParts): Promise<ReportSample[]> {
  const cut = AbortSignal.any([signal, AbortSignal.timeout(mostMilliseconds)]);
  const samples: ReportSample[] = [];
  for (const { prompt, expected } of questions(dataset)) {
    const before = await withoutAdapter(model, () => answer(model, tokenizer, prompt, cut));
    const after = await answer(model, tokenizer, prompt, cut);
    if (cut.aborted) break;
    samples.push({ prompt: tokenizer.decode([...prompt]), before, after, expected: tokenizer.decode([...expected], { skipSpecialTokens: true }) });
  }
  return samples;
}

interface Question {
  readonly prompt: readonly number[];
  readonly expected: readonly number[];
}

function questions(dataset: Dataset): Question[] {
  const count = Math.min(shownRows, dataset.length);
  const rows = Array.from({ length: count }, (_, i) => dataset.get(Math.floor((i * dataset.length) / count)));
  return rows.flatMap(questionOf);
}

/** A row up to its first answer, and the answer. */
function questionOf({ inputIds, labels }: Sample): Question[] {
  const learned = labels.findIndex((label, t) => t > 0 && label !== IGNORE);
  if (learned < 0) return [];
  const start = labels[0] === IGNORE ? learned : Math.min(openingTokens, inputIds.length >> 1);
  const next = labels.findIndex((label, t) => t > start && label === IGNORE);
  const end = Math.min(next < 0 ? inputIds.length : next, start + answerTokens);
  return [{ prompt: [...inputIds.subarray(0, start)], expected: [...inputIds.subarray(start, end)] }];
}

async function withoutAdapter<T>(model: Model, body: () => Promise<T>): Promise<T> {
  const name = activeAdapter(model)?.name ?? null;
  setAdapter(model, null);
  try {
    return await body();
  } finally {
    setAdapter(model, name);
  }
}

async function answer(model: Model, tokenizer: Tokenizer, prompt: readonly number[], signal: AbortSignal): Promise<string> {
  let text = '';
  for await (const piece of generate(model, tokenizer, prompt, { maxTokens: answerTokens, signal })) text += piece.text;
  return text;
}
