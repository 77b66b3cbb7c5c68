import { Option, type Command } from 'commander';

/** Flags of every verb that runs a model. */
export interface ModelFlags {
  readonly model: string;
  readonly adapter?: string;
  readonly device: string;
  readonly weights?: 'f16' | 'bf16' | 'f32';
}

export function addModelOptions(command: Command): Command {
  return command
    .option('--model <dir>', 'Hugging Face folder of the base model')
    .option('--adapter <dir>', 'PEFT folder of an adapter to put on it')
    .option('--device <name>', 'cpu, cuda, cuda:N or auto', 'auto')
    .addOption(new Option('--weights <dtype>', 'dtype of the frozen weights (default: as stored)').choices(['f16', 'bf16', 'f32']));
}
