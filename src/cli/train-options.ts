import { Option, type Command } from 'commander';
import { type ActivationDtype, activationDtypes, type MatmulPrecision, matmulPrecisions } from '../device.ts';
import { scheduleKinds, type ScheduleKind } from '../optim/schedule.ts';
import { weightMemoryText } from './model-options.ts';
import { betaPair, weightMemory, number, refuseTogether, requireFlags, targetList, UsageError, wholeNumber } from './usage.ts';

/** `lowrank train`'s flags as they were typed; what has a default is always there. */
export interface TrainFlags {
  readonly model: string;
  readonly data: string;
  readonly out: string;
  readonly rank?: number;
  readonly alpha?: number;
  readonly targets?: string[] | string;
  readonly dropout?: number;
  readonly rslora?: boolean;
  readonly adapter?: string;
  readonly steps?: number;
  readonly epochs?: number;
  readonly batchSize: number;
  readonly accumulate: number;
  readonly seqLength?: number;
  readonly packing: 'none' | 'first-fit';
  readonly optimizer: 'adamw' | 'sgd';
  readonly lr: number;
  readonly betas?: [number, number];
  readonly momentum?: number;
  readonly loraPlus: number;
  readonly schedule: ScheduleKind;
  readonly warmup: number;
  readonly weightDecay: number;
  readonly clip: number;
  readonly seed: number;
  readonly device: string;
  readonly matmulPrecision?: MatmulPrecision;
  readonly activations?: ActivationDtype;
  readonly weights?: 'f16' | 'bf16' | 'f32';
  readonly weightMemory?: number | 'auto' | 'all';
  readonly checkpointing: 'none' | 'blocks';
  readonly eval?: string;
  readonly evalEvery?: number;
  readonly saveEvery: number;
  readonly resume?: boolean | string;
  readonly shuffle: boolean;
  readonly json?: boolean;
}

const choice = (flags: string, text: string, of: readonly string[]): Option => new Option(flags, text).choices(of);

export function addTrainOptions(command: Command): Command {
  command
    .option('--model <dir>', 'Hugging Face folder of the frozen base model')
    .option('--data <file>', 'training data: .jsonl, .txt, .csv or .parquet')
    .option('--out <dir>', 'where adapter, checkpoints and report go');
  command.optionsGroup('Adapter:');
  command
    .option('--rank <n>', 'width of the update (default: 8)', wholeNumber(1))
    .option('--alpha <x>', 'the update is scaled by alpha / rank (default: twice the rank)', number({ above: 0 }))
    .option('--targets <names>', 'layers to adapt: names with commas, a regular expression, or all-linear (default: all-linear)', targetList)
    .option('--dropout <p>', "share of the adapter's input that is dropped in training (default: 0)", number({ least: 0, below: 1 }))
    .option('--rslora', 'scale by alpha / sqrt(rank)')
    .option('--adapter <dir>', 'start from this PEFT adapter; rank, alpha, targets and dropout are its own');
  command.optionsGroup('Length and batches:');
  command
    .option('--steps <n>', 'optimizer steps', wholeNumber(1))
    .option('--epochs <x>', 'passes over the data (default: 1)', number({ above: 0 }))
    .option('--batch-size <n>', 'rows in a micro-batch', wholeNumber(1), 4)
    .option('--accumulate <n>', 'micro-batches in a step', wholeNumber(1), 1)
    .option('--seq-length <n>', "most tokens of a row (default: 512, or what the model takes)", wholeNumber(2))
    .addOption(choice('--packing <kind>', 'first-fit puts several samples into a row; they do not see each other', ['none', 'first-fit']).default('none'))
    .option('--no-shuffle', 'rows in the order of the file')
    .option('--seed <n>', 'of data order, first weights and dropout', wholeNumber(0), 0);
  command.optionsGroup('Optimizer:');
  command
    .addOption(choice('--optimizer <kind>', 'adamw or sgd', ['adamw', 'sgd']).default('adamw'))
    .option('--lr <x>', 'highest learning rate', number({ least: 0 }), 2e-4)
    .option('--betas <a,b>', "decay of AdamW's moments (default: 0.9,0.999)", betaPair)
    .option('--momentum <x>', 'of SGD (default: 0)', number({ least: 0, below: 1 }))
    .option('--lora-plus <x>', "LoRA+: B's rate is this times A's", number({ above: 0 }), 1)
    .addOption(choice('--schedule <kind>', 'how the rate goes after the warm-up', scheduleKinds).default('linear'))
    .option('--warmup <n>', 'steps of linear rise', wholeNumber(0), 0)
    .option('--weight-decay <x>', 'decoupled with adamw', number({ least: 0 }), 0)
    .option('--clip <x>', 'greatest norm of the gradient; 0: not clipped', number({ least: 0 }), 1);
  command.optionsGroup('Machine:');
  command
    .option('--device <name>', 'cpu, cuda, cuda:N or auto', 'auto')
    .addOption(choice('--weights <dtype>', 'dtype of the frozen weights (default: as stored)', ['f16', 'bf16', 'f32']))
    .option('--weight-memory <bytes>', weightMemoryText, weightMemory)
    .addOption(choice('--matmul-precision <kind>', 'medium: frozen products in bf16 where the processor has it (default: highest)', matmulPrecisions))
    .addOption(choice('--activations <dtype>', 'what activations are stored in (default: bf16 on cuda, f32 on cpu, which has nothing else)', activationDtypes))
    .addOption(choice('--checkpointing <kind>', 'blocks: hold less and compute more', ['none', 'blocks']).default('none'));
  command.optionsGroup('Watching and saving:');
  return command
    .option('--eval <file>', 'held-out data: measured before, every --eval-every steps, and at the end')
    .option('--eval-every <n>', 'steps between measurements', wholeNumber(1))
    .option('--save-every <n>', 'steps between checkpoints (default: only in the end)', wholeNumber(0), 0)
    .option('--resume [checkpoint]', 'go on exactly from the newest whole checkpoint in --out, or from this one')
    .option('--json', 'one JSON line per step on stdout and nothing else there');
}

/** What can't be meant. @throws UsageError */
export function checkTrainFlags(flags: TrainFlags): void {
  requireFlags(flags, ['model', 'data', 'out']);
  const own = (name: string): [string, string, string] => ['adapter', name, 'the adapter has its own'];
  refuseTogether(flags, [
    ['steps', 'epochs', 'each says how long the run is'],
    ...['rank', 'alpha', 'targets', 'dropout', 'rslora'].map(own),
  ]);
  if (flags.evalEvery !== undefined && flags.eval === undefined) throw new UsageError('--eval-every needs data to measure on: add --eval FILE');
  if (flags.optimizer === 'sgd' && flags.betas !== undefined) throw new UsageError('--betas belongs to adamw; sgd has --momentum');
  if (flags.optimizer === 'adamw' && flags.momentum !== undefined) throw new UsageError('--momentum belongs to sgd; adamw has --betas');
  if (flags.steps !== undefined && flags.warmup > flags.steps) throw new UsageError(`--warmup ${flags.warmup} is longer than the run (--steps ${flags.steps})`);
}
