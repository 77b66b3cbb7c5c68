import { readFile } from 'node:fs/promises';
import { text as readAll } from 'node:stream/consumers';
import type { Command } from 'commander';
import { renderChat } from '../data/chat.ts';
import { openingIds, plainIds } from '../data/continuation.ts';
import type { Tokenizer } from '../data/tokenizer.ts';
import { generate, generateBatch, type GenerateBatchOptions } from '../generation/generate.ts';
import { LowrankError } from '../error.ts';
import { loadAdapter } from '../lora/load.ts';
import { addModelOptions, type ModelFlags } from './model-options.ts';
import { needTokenizer, openSession } from './session.ts';
import { listenForStop } from './stop-signals.ts';
import { number, requireFlags, UsageError, wholeNumber } from './usage.ts';

interface GenerateFlags extends ModelFlags {
  readonly prompt?: string;
  readonly prompts?: string;
  readonly batchSize: number;
  readonly chat?: boolean;
  readonly temperature: number;
  readonly topK: number;
  readonly topP: number;
  readonly seed: number;
  readonly stop: string[];
  readonly maxTokens: number;
  readonly json?: boolean;
}

export function addGenerate(program: Command): void {
  addModelOptions(program.command('generate').description('continue a text, as it comes; greedy unless a temperature is given'))
    .option('--prompt <text>', 'what to continue (otherwise read from stdin)')
    .option('--prompts <file>', 'continue every line of a file, many at a time; one JSON object a text on stdout, in the order in which they end')
    .option('--batch-size <n>', 'texts in work at a time, with --prompts', wholeNumber(1), 16)
    .option('--chat', "the prompt is a user's message; the model's chat template is put around it")
    .option('--temperature <x>', '0: always the likeliest token', number({ least: 0 }), 0)
    .option('--top-k <n>', 'choose among this many; 0: all', wholeNumber(0), 0)
    .option('--top-p <p>', 'choose among those whose probabilities sum to this', number({ above: 0, most: 1 }), 1)
    .option('--seed <n>', 'of the choice', wholeNumber(0), 0)
    .option('--stop <text>', 'ends the text; may be given several times (\\n is a line break)', (text: string, before: string[]) => [...before, unescaped(text)], [])
    .option('--max-tokens <n>', 'most tokens to write', wholeNumber(1), 256)
    .option('--json', 'one JSON object with the whole text on stdout')
    .action(run);
}

async function run(flags: GenerateFlags): Promise<void> {
  requireFlags(flags, ['model']);
  if (flags.prompt !== undefined && flags.prompts !== undefined) throw new UsageError('--prompt and --prompts exclude each other');
  const prompts = flags.prompts === undefined ? [await promptOf(flags)] : await promptLines(flags.prompts);
  await using session = await openSession(flags);
  const tokenizer = needTokenizer(session, 'to read a prompt');
  using _adapter = flags.adapter === undefined ? null : await loadAdapter(session.model, flags.adapter, { trainable: false });
  const stop = listenForStop(() => undefined);
  try {
    const ids = prompts.map((prompt) => idsOf(tokenizer, prompt, flags.chat === true));
    const options = samplingOf(flags, stop.signal);
    if (flags.prompts === undefined) await write(flags, generate(session.model, tokenizer, ids[0] ?? [], options));
    else await writeEach(prompts, generateBatch(session.model, tokenizer, ids, options));
    process.exitCode = stop.status() ?? 0;
  } finally {
    stop.dispose();
  }
}

async function write({ json }: GenerateFlags, tokens: ReturnType<typeof generate>): Promise<void> {
  const ids: number[] = [];
  let whole = '';
  for (let next = await tokens.next(); ; next = await tokens.next()) {
    if (next.done) {
      process.stdout.write(json ? `${JSON.stringify({ text: whole, tokens: ids.length, end: next.value })}\n` : '\n');
      return;
    }
    ids.push(next.value.id);
    whole += next.value.text;
    if (!json) process.stdout.write(next.value.text);
  }
}

async function writeEach(prompts: readonly string[], tokens: ReturnType<typeof generateBatch>): Promise<void> {
  const texts = prompts.map(() => ({ text: '', tokens: 0 }));
  for await (const { prompt, text, end } of tokens) {
    const own = texts[prompt] as { text: string; tokens: number };
    own.text += text;
    own.tokens++;
    if (end !== null) process.stdout.write(`${JSON.stringify({ index: prompt, prompt: prompts[prompt], ...own, end })}\n`);
  }
}

function samplingOf({ temperature, topK, topP, seed, stop, maxTokens, batchSize }: GenerateFlags, signal: AbortSignal): GenerateBatchOptions {
  return { temperature, topK, topP, seed, stop, maxTokens, batchSize, signal };
}

/** The ids that training would have made of this prompt. */
export function idsOf(tokenizer: Tokenizer, prompt: string, chat: boolean): number[] {
  if (!chat) return openingIds(tokenizer, prompt);
  return plainIds(tokenizer, renderChat(tokenizer, [{ role: 'user', content: prompt }], { addGenerationPrompt: true }));
}

async function promptOf({ prompt }: GenerateFlags): Promise<string> {
  if (prompt !== undefined) return prompt;
  if (process.stdin.isTTY) throw new UsageError('generate needs --prompt TEXT, or a text on stdin');
  return (await readAll(process.stdin)).replace(/\r?\n$/, '');
}

/** The lines of a file, without the last if it is empty. */
async function promptLines(path: string): Promise<string[]> {
  const content = await readFile(path, 'utf8').catch((error: unknown) => {
    throw new LowrankError('ERR_FILE', `${path}: must be a readable file of prompts (${error instanceof Error ? error.message : String(error)})`);
  });
  const lines = content.split(/\r?\n/);
  return lines.at(-1) === '' ? lines.slice(0, -1) : lines;
}

function unescaped(text: string): string {
  return text.replace(/\\([nt\\])/g, (_, letter: string) => ({ n: '\n', t: '\t' })[letter] ?? '\\');
}
