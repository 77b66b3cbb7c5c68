import { readFileSync } from 'node:fs';
import { Command, CommanderError } from 'commander';
import { LowrankError } from '../error.ts';
import { addBench } from './bench.ts';
import { addBuild } from './build.ts';
import { addDemo } from './demo.ts';
import { addDoctor } from './doctor.ts';
import { addEval } from './eval.ts';
import { addGenerate } from './generate.ts';
import { addInspect } from './inspect.ts';
import { addMerge } from './merge.ts';
import { addTrain } from './train.ts';
import { UsageError } from './usage.ts';

// Exit status: 0 done, 1 failed, 2 the command line is wrong, 130 Ctrl-C, 143 SIGTERM.

function programOf(): Command {
  const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as { version: string };
  const program = new Command('lowrank')
    .description('LoRA fine-tuning of Hugging Face models: native kernels, PEFT adapters out')
    .version(version)
    .showHelpAfterError('(add --help for the flags)')
    .exitOverride()
    .configureOutput({ outputError: (text, write) => write(text.replace(/^error: /, 'lowrank: ')) });
  // Subcommands take over what is set before they are made.
  for (const add of [addTrain, addGenerate, addEval, addMerge, addInspect, addDoctor, addBench, addDemo, addBuild]) add(program);
  return program;
}

/** Runs one command line; the exit status is left in `process.exitCode`. */
export async function runCommandLine(args: readonly string[]): Promise<void> {
  try {
    await programOf().parseAsync(args, { from: 'user' });
  } catch (error) {
    process.exitCode = tell(error);
  }
}

function tell(error: unknown): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2; // commander has told it
  if (error instanceof UsageError) {
    process.stderr.write(`lowrank: ${error.message}\n`);
    return 2;
  }
  process.stderr.write(`${failure(error)}\n`);
  if (process.env['LOWRANK_DEBUG'] === '1' && error instanceof Error) process.stderr.write(`${error.stack ?? ''}\n`);
  return 1;
}

/** One line, and one more for each further fault of a list. The code stands behind the first. */
function failure(error: unknown): string {
  const [code, message] = error instanceof LowrankError ? [error.code, error.message] : ['ERR_INTERNAL', error instanceof Error ? error.message : String(error)];
  const [first = '', ...rest] = message.replace(/^lowrank: /, '').split('\n');
  return [`lowrank: ${first} [${code}]`, ...rest].join('\n');
}
