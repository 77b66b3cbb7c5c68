import type { Command } from 'commander';
import { loadAdapter } from '../lora/load.ts';
import { mergeAdapter } from '../lora/merge.ts';
import { saveModel } from '../models/save.ts';
import { openSession } from './session.ts';
import { requireFlags } from './usage.ts';

interface MergeFlags {
  readonly model: string;
  readonly adapter: string;
  readonly out: string;
  readonly device: string;
}

export function addMerge(program: Command): void {
  program
    .command('merge')
    .description('write a Hugging Face folder with an adapter merged into the weights, in their own dtype')
    .option('--model <dir>', 'Hugging Face folder of the base model')
    .option('--adapter <dir>', 'PEFT folder of the adapter')
    .option('--out <dir>', 'a new folder')
    .option('--device <name>', 'cpu, cuda, cuda:N or auto', 'auto')
    .action(merge);
}

async function merge(flags: MergeFlags): Promise<void> {
  requireFlags(flags, ['model', 'adapter', 'out']);
  const { model: folder, adapter: from, out, device } = flags;
  await using session = await openSession({ model: folder, device });
  const { model } = session;
  using adapter = await loadAdapter(model, from, { trainable: false });
  using _merged = mergeAdapter(model, adapter);
  const { files, left } = await saveModel(model, out);
  process.stderr.write(`merged ${adapter.modules.length} layers in ${model.facts.dtype}: ${out} has ${files.join(', ')} and the other files of ${folder}\n`);
  if (left.length > 0) process.stderr.write(`left out, since they hold the weights without the adapter: ${left.join(', ')}\n`);
}
