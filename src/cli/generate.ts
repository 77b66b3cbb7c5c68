import { text as readAll } from 'node:stream/consumers';
import type { Command } from 'commander';
import { renderChat } from '../data/chat.ts';
import { openingIds, plainIds } from '../data/continuation.ts';
import type { Tokenizer } from '../data/tokenizer.ts';
import { generate, type GenerateOptions } from '../generation/generate.ts';
import { loadAdapter } from '../lora/load.ts';
import { addModelOptions, type ModelFlags } from './model-options.ts';
import { needTokenizer, openSession } from './session.ts';
import { listenForStop } from './stop-signals.ts';
import { number, requireFlags, UsageError, wholeNumber } from './usage.ts';

interface GenerateFlags extends ModelFlags {
  readonly prompt?: string;
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
  const prompt = await promptOf(flags);
  await using session = await openSession(flags);
  const tokenizer = needTokenizer(session, 'to read a prompt');
  using _adapter = flags.adapter === undefined ? null : await loadAdapter(session.model, flags.adapter, { trainable: false });
  const stop = listenForStop(() => undefined);
  try {
    await write(flags, generate(session.model, tokenizer, idsOf(tokenizer, prompt, flags.chat === true), samplingOf(flags, stop.signal)));
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

function samplingOf({ temperature, topK, topP, seed, stop, maxTokens }: GenerateFlags, signal: AbortSignal): GenerateOptions {
  return { temperature, topK, topP, seed, stop, maxTokens, signal };
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

function unescaped(text: string): string {
  return text.replace(/\\([nt\\])/g, (_, letter: string) => ({ n: '\n', t: '\t' })[letter] ?? '\\');
}
