import { existsSync } from 'node:fs';
import path from 'node:path';
import type { Command } from 'commander';
import type { Dataset } from '../data/dataset.ts';
import type { Device } from '../device.ts';
import { LowrankError } from '../error.ts';
import { attachLora } from '../lora/attach.ts';
import type { Adapter } from '../lora/adapter.ts';
import { loadAdapter } from '../lora/load.ts';
import { AdamW } from '../optim/adamw.ts';
import type { Optimizer } from '../optim/optimizer.ts';
import { Sgd } from '../optim/sgd.ts';
import type { ModelFacts } from '../models/model.ts';
import { memoryBeforehand } from '../train/memory-estimate.ts';
import { openRunLog, stepLine, type RunLog } from '../train/run-log.ts';
import type { EndEvent } from '../train/run-events.ts';
import { Trainer } from '../train/trainer.ts';
import { digits, duration } from './format.ts';
import { progressOn } from './progress.ts';
import { readRows, rowLength } from './rows.ts';
import { writeSamples } from './run-samples.ts';
import { openSession, type Session } from './session.ts';
import { listenForStop } from './stop-signals.ts';
import { addTrainOptions, checkTrainFlags, type TrainFlags } from './train-options.ts';
import { describeRun, writeRunReport, type RunReport } from './run-report.ts';

export function addTrain(program: Command): void {
  addTrainOptions(program.command('train').description('fine-tune a low-rank adapter over a frozen model')).action(train);
}

async function train(flags: TrainFlags): Promise<void> {
  checkTrainFlags(flags);
  const say = (text: string): void => void process.stderr.write(`${text}\n`);
  await using session = await openSession({ ...flags, reserve: (facts, device) => reserveOf(flags, facts, device) });
  const maxLength = rowLength(flags.seqLength, session.model);
  const dataset = await readRows(flags.data, session, maxLength);
  const evalDataset = flags.eval === undefined ? null : await readRows(flags.eval, session, maxLength);
  const adapter = await adapterOf(flags, session);
  const optimizer = optimizerOf(flags, adapter);
  const stop = listenForStop(() => say('\nstopping after this step; again to end at once'));
  try {
    const trainer = trainerOf({ flags, session, dataset, evalDataset, adapter, optimizer, maxLength, signal: stop.signal });
    say(describeRun({ session, adapter, dataset, steps: trainer.steps }));
    if (session.device.note !== '' && existsSync('/dev/nvidiactl')) say(`the GPU is not used: ${session.device.note}`);
    const end = await follow(trainer, { flags, session, adapter, dataset, evalDataset, signal: stop.signal });
    for (const line of farewell(end, flags)) say(line);
    process.exitCode = end.reason === 'stopped' ? (stop.status() ?? 0) : 0;
  } finally {
    stop.dispose();
    optimizer.dispose();
    adapter.dispose();
  }
}

/** What training will take beside the weights; an adapter that is loaded may have any rank. */
function reserveOf({ adapter, rank = adapter === undefined ? 8 : 64, batchSize, seqLength, checkpointing }: TrainFlags, facts: ModelFacts, { info }: Device): number {
  const tokens = batchSize * rowLength(seqLength, { facts });
  return 1.1 * memoryBeforehand(facts, info.activations, rank, { tokens, checkpointing });
}

async function adapterOf(flags: TrainFlags, { model }: Session): Promise<Adapter> {
  const { rank = 8, alpha = 2 * rank, targets = 'all-linear', dropout = 0, rslora = false, seed } = flags;
  if (flags.adapter !== undefined) return loadAdapter(model, flags.adapter, { seed });
  return attachLora(model, { rank, alpha, targets, dropout, useRslora: rslora, seed });
}

function optimizerOf(flags: TrainFlags, adapter: Adapter): Optimizer {
  const { lr, weightDecay, loraPlus: loraPlusRatio, betas = [0.9, 0.999], momentum = 0 } = flags;
  if (flags.optimizer === 'sgd') return new Sgd(adapter.parameters(), { lr, weightDecay, loraPlusRatio, momentum });
  return new AdamW(adapter.parameters(), { lr, weightDecay, loraPlusRatio, betas });
}

interface TrainerParts {
  readonly flags: TrainFlags;
  readonly session: Session;
  readonly dataset: Dataset;
  readonly evalDataset: Dataset | null;
  readonly adapter: Adapter;
  readonly optimizer: Optimizer;
  readonly maxLength: number;
  readonly signal: AbortSignal;
}

function trainerOf({ flags, session, dataset, evalDataset, adapter, optimizer, maxLength, signal }: TrainerParts): Trainer {
  const { steps, epochs, batchSize, accumulate, packing, shuffle, seed, schedule, warmup, clip, checkpointing, saveEvery, out, resume = false } = flags;
  return new Trainer({
    model: session.model, adapter, optimizer, dataset, batchSize, accumulate, packing, shuffle, seed, schedule, warmup, clip, checkpointing, saveEvery, out, resume, signal,
    seqLength: maxLength,
    ...(steps === undefined ? {} : { steps }),
    ...(epochs === undefined ? {} : { epochs }),
    ...(evalDataset === null ? {} : { evalDataset, evalEvery: flags.evalEvery ?? 0 }),
  });
}

interface Followed {
  readonly flags: TrainFlags;
  readonly session: Session;
  readonly adapter: Adapter;
  readonly dataset: Dataset;
  readonly evalDataset: Dataset | null;
  readonly signal: AbortSignal;
}

/** Shows and records every event; writes the report however the run ends. */
async function follow(trainer: Trainer, run: Followed): Promise<EndEvent> {
  const { flags } = run;
  const progress = progressOn(process.stderr, trainer.steps);
  const began = performance.now();
  let log: RunLog | null = null;
  let end: EndEvent | null = null;
  try {
    for await (const event of trainer) {
      if (event.type === 'start') log = await openRunLog(flags.out, event.step);
      log?.note(event);
      progress.show(event);
      if (event.type === 'step' && flags.json) process.stdout.write(`${JSON.stringify(stepLine(event))}\n`);
      if (event.type === 'end') end = event;
    }
  } catch (error) {
    // A report that can't be written either (a full disk) must not hide what stopped the run.
    if (log !== null) await report(run, { log, began, notes: [`The run stopped: ${(error as Error).message}`] }).catch(() => undefined);
    throw error;
  } finally {
    log?.close();
  }
  if (end === null || log === null) throw new LowrankError('ERR_INTERNAL', 'train: the run ended without a word');
  if (end.reason === 'stopped') await report(run, { log, began, notes: [`The run was stopped at step ${end.step} of ${end.steps}.`] });
  if (end.reason === 'complete') await report(run, { log, began, ...(await samplesOf(run)) });
  return end;
}

/** Samples are worth a note when they fail, not a run that is done. */
async function samplesOf({ session: { model, tokenizer }, dataset, evalDataset, signal }: Followed): Promise<Pick<RunReport, 'samples' | 'notes'>> {
  if (tokenizer === null) return { notes: [] };
  try {
    return { samples: await writeSamples({ model, tokenizer, dataset: evalDataset ?? dataset, signal }), notes: [] };
  } catch (error) {
    return { notes: [`No samples: ${(error as Error).message}`] };
  }
}

async function report({ flags, session, adapter, dataset }: Followed, { began, ...rest }: Pick<RunReport, 'log' | 'notes' | 'samples'> & { began: number }): Promise<void> {
  const [title, seconds] = [path.basename(path.resolve(flags.out)), (performance.now() - began) / 1000];
  await writeRunReport(path.join(flags.out, 'report.html'), { title, seconds, session, adapter, dataset, settings: shownSettings(flags), ...rest });
}

/** What the report tells of the flags: all but where things lie. */
function shownSettings(flags: TrainFlags): Record<string, string | number | boolean> {
  const left = new Set(['json', 'resume', 'model', 'adapter', 'out', 'rank', 'alpha', 'targets', 'dropout', 'rslora']);
  return Object.fromEntries(Object.entries(flags).flatMap(([name, value]: [string, unknown]) => (left.has(name) || value === undefined ? [] : [[name, typeof value === 'object' ? String(value) : value as string]])));
}

function farewell(end: EndEvent, { out, model }: TrainFlags): string[] {
  if (end.reason === 'already-complete') return [`${out}: the run is complete already (step ${end.step} of ${end.steps}); nothing was left to do`];
  if (end.reason === 'stopped') return [`stopped at step ${end.step} of ${end.steps}; the same command with --resume goes on exactly there`];
  const losses = end.evalLoss === null ? `loss ${digits(end.loss ?? NaN)}` : `loss ${digits(end.loss ?? NaN)}, held-out ${digits(end.evalLoss)}`;
  const skipped = end.skipped > 0 ? `, ${end.skipped} steps skipped` : '';
  return [
    `done: ${end.step} steps in ${duration(end.seconds)}, ${losses}${skipped}`,
    `adapter and report are in ${out}; try: lowrank generate --model ${model} --adapter ${out} --prompt "…"`,
  ];
}
