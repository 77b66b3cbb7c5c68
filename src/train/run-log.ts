import { appendFileSync, mkdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { LowrankError } from '../error.ts';
import { writeFileAtomic } from '../io/atomic.ts';
import { openEventFile, type EventFile } from './events.ts';
import type { ReportStep } from './report.ts';
import type { EvalEvent, StepEvent, TrainEvent } from './run-events.ts';

/** What a run's folder remembers of its course, for TensorBoard, for other programs and for the report. */
export interface RunLog {
  /** Every step of the run so far, those before a resume included. */
  readonly steps: ReportStep[];
  readonly evals: { step: number; loss: number }[];
  /** Writes an event down; kinds that leave no trace are ignored. @throws LowrankError ERR_FILE */
  note(event: TrainEvent): void;
  close(): void;
}

/** The line of `metrics.jsonl` and of `train --json`. */
export type StepLine = Pick<StepEvent, 'step' | 'loss' | 'tokens' | 'gradNorm' | 'lr' | 'tokensPerSecond'>;

/** A step as one line tells it; a number that is not finite becomes null in JSON. */
export function stepLine({ step, loss, tokens, gradNorm, lr, tokensPerSecond }: StepEvent): StepLine {
  return { step, loss, tokens, gradNorm, lr, tokensPerSecond: Number(tokensPerSecond.toPrecision(6)) };
}

/**
 * Opens the records of a run in `out`: `metrics.jsonl` (a line a step, and a line `{step, evalLoss, perplexity, evalTokens}` a
 * measurement) and TensorBoard events in `runs/`. Lines behind step `from`, which a killed run wrote after its last checkpoint,
 * are dropped, since those steps are made again.
 *
 * @throws LowrankError ERR_FILE
 */
export async function openRunLog(out: string, from: number): Promise<RunLog> {
  const file = path.join(out, 'metrics.jsonl');
  mkdirSync(out, { recursive: true });
  const kept = from === 0 ? [] : linesUpTo(file, from);
  await writeFileAtomic(file, kept.map((line) => `${JSON.stringify(line)}\n`).join(''));
  const events = openEventFile(path.join(out, 'runs'));
  const log: RunLog = {
    steps: kept.flatMap((line) => ('loss' in line ? [withNumbers(line)] : [])),
    evals: kept.flatMap((line) => ('evalLoss' in line ? [{ step: line.step, loss: line.evalLoss ?? NaN }] : [])),
    note(event) {
      if (event.type === 'step') noteStep(log, event, { file, events });
      if (event.type === 'eval') noteEval(log, event, { file, events });
    },
    close: () => events.close(),
  };
  return log;
}

interface Sinks {
  readonly file: string;
  readonly events: EventFile;
}

function noteStep(log: RunLog, event: StepEvent, { file, events }: Sinks): void {
  const line = stepLine(event);
  log.steps.push(line);
  append(file, line);
  const { loss, lr, gradNorm, tokensPerSecond, epoch } = event;
  events.scalars(event.step, { 'train/loss': loss, 'train/lr': lr, 'train/grad_norm': gradNorm, 'train/epoch': epoch, 'speed/tokens_per_second': tokensPerSecond });
}

function noteEval(log: RunLog, { step, loss, perplexity, tokens }: EvalEvent, { file, events }: Sinks): void {
  log.evals.push({ step, loss });
  append(file, { step, evalLoss: loss, perplexity, evalTokens: tokens });
  events.scalars(step, { 'eval/loss': loss, 'eval/perplexity': perplexity });
}

function append(file: string, line: object): void {
  try {
    appendFileSync(file, `${JSON.stringify(line)}\n`);
  } catch (cause) {
    throw new LowrankError('ERR_FILE', `${file}: can't be written (${(cause as NodeJS.ErrnoException).code})`, { cause });
  }
}

type Line = { [K in keyof StepLine]: StepLine[K] | null } & { step: number } | { step: number; evalLoss: number | null };

/** Whole lines of steps up to `last`; a line that a kill cut short is not JSON. */
function linesUpTo(file: string, last: number): Line[] {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch {
    return [];
  }
  return text.split('\n').flatMap((row) => {
    try {
      const line = JSON.parse(row) as Line;
      return line.step <= last ? [line] : [];
    } catch {
      return [];
    }
  });
}

/** JSON has no NaN; null stood for it. */
function withNumbers(line: Extract<Line, { loss: number | null }>): ReportStep {
  const number = (value: number | null): number => value ?? NaN;
  return { step: line.step, loss: number(line.loss), lr: number(line.lr), gradNorm: number(line.gradNorm), tokens: number(line.tokens), tokensPerSecond: number(line.tokensPerSecond) };
}
