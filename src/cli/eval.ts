import type { Command } from 'commander';
import { loadAdapter } from '../lora/load.ts';
import { evaluate } from '../train/evaluate.ts';
import { inFileOrder } from '../train/run.ts';
import { count, digits } from './format.ts';
import { addModelOptions, type ModelFlags } from './model-options.ts';
import { readRows, rowLength } from './rows.ts';
import { openSession } from './session.ts';
import { requireFlags, wholeNumber } from './usage.ts';

interface EvalFlags extends ModelFlags {
  readonly data: string;
  readonly batchSize: number;
  readonly seqLength?: number;
  readonly json?: boolean;
}

export function addEval(program: Command): void {
  addModelOptions(program.command('eval').description('loss and perplexity of a model, with or without an adapter, on a data file'))
    .option('--data <file>', '.jsonl, .txt, .csv or .parquet')
    .option('--batch-size <n>', 'rows at a time', wholeNumber(1), 4)
    .option('--seq-length <n>', "most tokens of a row (default: 512, or what the model takes)", wholeNumber(2))
    .option('--json', 'one JSON object on stdout')
    .action(evaluateFile);
}

async function evaluateFile(flags: EvalFlags): Promise<void> {
  requireFlags(flags, ['model', 'data']);
  await using session = await openSession(flags);
  const { model } = session;
  const dataset = await readRows(flags.data, session, rowLength(flags.seqLength, model));
  using _adapter = flags.adapter === undefined ? null : await loadAdapter(model, flags.adapter, { trainable: false });
  const { loss, perplexity, tokens } = await evaluate(model, inFileOrder(dataset, flags.batchSize));
  if (flags.json) process.stdout.write(`${JSON.stringify({ loss, perplexity, tokens, samples: dataset.length })}\n`);
  else process.stdout.write(`loss ${digits(loss)}  perplexity ${digits(perplexity)}  (${count(tokens)} tokens, ${count(dataset.length)} samples)\n`);
}
