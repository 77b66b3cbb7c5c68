import { Option, type Command } from 'commander';
import { type ActivationDtype, activationDtypes, type MatmulPrecision, matmulPrecisions } from '../device.ts';
import { weightMemory } from './usage.ts';

/** Flags of every verb that runs a model. */
export interface ModelFlags {
  readonly model: string;
  readonly adapter?: string;
  readonly device: string;
  readonly matmulPrecision?: MatmulPrecision;
  readonly activations?: ActivationDtype;
  readonly weights?: 'f16' | 'bf16' | 'f32';
  readonly weightMemory?: number | 'auto' | 'all';
}

export function addModelOptions(command: Command): Command {
  return command
    .option('--model <dir>', 'Hugging Face folder of the base model')
    .option('--adapter <dir>', 'PEFT folder of an adapter to put on it')
    .option('--device <name>', 'cpu, cuda, cuda:N or auto', 'auto')
    .addOption(new Option('--matmul-precision <kind>', 'medium: frozen products in bf16 where the processor has it (default: highest)').choices(matmulPrecisions))
    .addOption(new Option('--activations <dtype>', 'what activations are stored in (default: bf16 on cuda, f32 on cpu, which has nothing else)').choices(activationDtypes))
    .addOption(new Option('--weights <dtype>', 'dtype of the frozen weights (default: as stored)').choices(['f16', 'bf16', 'f32']))
    .option('--weight-memory <bytes>', weightMemoryText, weightMemory);
}

export const weightMemoryText = 'memory that frozen weights may take, as 900M or 5.5G; what does not fit is brought in turns; all: they must all fit (default: auto, what the work leaves free)';
