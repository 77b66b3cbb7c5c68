import { existsSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Command } from 'commander';
import { loadDataset, type Dataset } from '../data/dataset.ts';
import { LowrankError } from '../error.ts';
import type { Adapter } from '../lora/adapter.ts';
import { attachLora } from '../lora/attach.ts';
import { AdamW } from '../optim/adamw.ts';
import type { ScheduleKind } from '../optim/schedule.ts';
import { evaluate } from '../train/evaluate.ts';
import type { ReportSample } from '../train/report.ts';
import { openRunLog, type RunLog } from '../train/run-log.ts';
import { inFileOrder } from '../train/run.ts';
import { Trainer } from '../train/trainer.ts';
import { answer, exactShare, readDemoSettings, readFactRows, type Asked, type DemoSettings, type FactRow } from './demo-task.ts';
import { digits, duration } from './format.ts';
import { describeRun, writeRunReport } from './run-report.ts';
import { needTokenizer, openSession, type Session } from './session.ts';
import { sparkline } from './sparkline.ts';
import { listenForStop } from './stop-signals.ts';
import { wholeNumber } from './usage.ts';

/** Rows that are asked before and after; more would make the demo longer than it is interesting. */
const askedRows = 24;

interface DemoFlags {
  readonly out: string;
  readonly steps?: number;
  readonly device: string;
}

const folder = path.join(path.dirname(fileURLToPath(import.meta.url)), '../../demo');

export function addDemo(program: Command): void {
  program
    .command('demo')
    .description('fine-tune the model that comes with this package, in about a minute, and show what it learned')
    .option('--out <dir>', 'where adapter and report go; what an earlier demo left there is replaced', 'lowrank-demo')
    .option('--steps <n>', 'optimizer steps (default: as demo.json says)', wholeNumber(1))
    .option('--device <name>', 'cpu, cuda, cuda:N or auto', 'auto')
    .action(demo);
}

const say = (text = ''): void => void process.stdout.write(`${text}\n`);

async function demo(flags: DemoFlags): Promise<void> {
  const began = performance.now();
  const settings = readDemoSettings(path.join(folder, 'demo.json'));
  await using session = await openSession({ model: path.join(folder, 'base'), device: flags.device });
  const tokenizer = needTokenizer(session, 'for the demo');
  const [dataset, heldout] = await Promise.all(['train', 'heldout'].map((name) => readRows(name, session, settings))) as [Dataset, Dataset];
  await clearOut(flags.out);
  const asked: Asked = { model: session.model, tokenizer, maxTokens: settings.maxNewTokens };
  const rows = readFactRows(path.join(folder, 'data', 'heldout.jsonl'), askedRows);
  say('A small model of English reads records of walks that it has never seen, and is asked to put them into words.\n');
  const before = await measure(asked, { settings, rows, heldout });
  showAnswers('Before', settings.prompts, before.answers);
  using adapter = attachLora(session.model, { rank: settings.rank, alpha: settings.alpha, targets: settings.targets, dropout: settings.dropout, seed: settings.seed });
  const log = await train({ flags, settings, session, adapter, dataset });
  if (log === null) return;
  const after = await measure(asked, { settings, rows, heldout });
  showAnswers('After', settings.prompts, after.answers);
  showMeasures(before, after, rows.length);
  const seconds = (performance.now() - began) / 1000;
  log.evals.push({ step: 0, loss: before.loss }, { step: log.steps.length, loss: after.loss });
  const samples = settings.prompts.map((prompt, i): ReportSample => ({ prompt, before: before.answers[i] ?? '', after: after.answers[i] ?? '' }));
  await writeRunReport(path.join(flags.out, 'report.html'), { title: 'lowrank demo', seconds, log, session, adapter, dataset, settings: { ...shownSettings(settings), 'exact before': before.exact, 'exact after': after.exact }, notes: [], samples });
  say(farewell(flags.out, settings.prompts[0] as string, seconds));
}

async function readRows(name: string, { tokenizer, model }: Session, { seqLength }: DemoSettings): Promise<Dataset> {
  return loadDataset(path.join(folder, 'data', `${name}.jsonl`), { tokenizer, maxLength: seqLength, vocabSize: model.facts.vocabSize });
}

/** Only what an earlier demo made may go. */
async function clearOut(out: string): Promise<void> {
  if (!existsSync(out)) return;
  const ours = existsSync(path.join(out, 'metrics.jsonl'));
  if (!ours) throw new LowrankError('ERR_ARGUMENT', `${out}: must not exist yet, or be what an earlier demo left (it is something else; name another folder with --out)`);
  await rm(out, { recursive: true });
}

interface Measured {
  readonly answers: readonly string[];
  readonly loss: number;
  /** Share of the asked rows whose answer has every fact. */
  readonly exact: number;
}

async function measure(asked: Asked, { settings, rows, heldout }: { settings: DemoSettings; rows: readonly FactRow[]; heldout: Dataset }): Promise<Measured> {
  const answers: string[] = [];
  for (const prompt of settings.prompts) answers.push(await answer(asked, prompt));
  const { loss } = await evaluate(asked.model, inFileOrder(heldout, settings.batchSize));
  return { answers, loss, exact: await exactShare(asked, rows) };
}

interface DemoRun {
  readonly flags: DemoFlags;
  readonly settings: DemoSettings;
  readonly session: Session;
  readonly adapter: Adapter;
  readonly dataset: Dataset;
}

/** Null when it was stopped. */
async function train({ flags, settings, session, adapter, dataset }: DemoRun): Promise<RunLog | null> {
  const { lr, weightDecay, warmup, batchSize, seed, maxGradNorm: clip } = settings;
  using optimizer = new AdamW(adapter.parameters(), { lr, weightDecay });
  const stop = listenForStop(() => say('\nstopping after this step'));
  const steps = flags.steps ?? settings.steps;
  const schedule = settings.schedule as ScheduleKind;
  const trainer = new Trainer({ model: session.model, adapter, optimizer, dataset, steps, batchSize, seed, schedule, warmup: Math.min(warmup, steps), clip, out: flags.out, keep: 1, signal: stop.signal });
  say(`${describeRun({ session, adapter, dataset, steps })}\n`);
  const log = await openRunLog(flags.out, 0);
  try {
    for await (const event of trainer) {
      log.note(event);
      if (event.type === 'step') showCurve(log, steps);
      if (event.type === 'end') say(`\n${event.step} steps in ${duration(event.seconds)}\n`);
      if (event.type === 'end' && event.reason === 'stopped') process.exitCode = stop.status() ?? 0;
    }
    return stop.status() === null ? log : null;
  } finally {
    log.close();
    stop.dispose();
  }
}

/** The curve grows on one line of a terminal; elsewhere ten lines tell it. */
function showCurve({ steps }: RunLog, total: number): void {
  const last = steps.at(-1);
  if (last === undefined) return;
  const width = Math.max(1, Math.round((40 * steps.length) / total));
  const text = `${sparkline(steps.map(({ loss }) => loss), width).padEnd(40)}  step ${String(last.step).padStart(String(total).length)}/${total}  loss ${digits(last.loss)}  ${Math.round(last.tokensPerSecond).toLocaleString('en-US')} tok/s`;
  if (process.stdout.isTTY) process.stdout.write(`\r\x1b[2K${text.slice(0, (process.stdout.columns ?? 80) - 1)}`);
  else if (last.step === 1 || last.step === total || last.step % Math.ceil(total / 10) === 0) say(text);
}

function showAnswers(title: string, prompts: readonly string[], answers: readonly string[]): void {
  say(`── ${title} ${'─'.repeat(Math.max(0, 70 - title.length))}`);
  prompts.forEach((prompt, i) => say(`  ${prompt}\n    ${answers[i] === '' ? '(nothing)' : answers[i]}\n`));
}

function showMeasures(before: Measured, after: Measured, rows: number): void {
  const percent = (share: number): string => `${Math.round(100 * share)}%`;
  say('── Measured on records that were not trained on ──────────────────────────');
  say(`  held-out loss                     ${digits(before.loss)}  →  ${digits(after.loss)}   (nats per token)`);
  say(`  texts with every fact of a record ${percent(before.exact).padStart(6)}  →  ${percent(after.exact).padStart(6)}   (${rows} records)\n`);
}

function shownSettings({ prompts: _, targets, ...rest }: DemoSettings): Record<string, string | number> {
  return { ...rest, targets: String(targets) };
}

function farewell(out: string, prompt: string, seconds: number): string {
  const base = path.relative(process.cwd(), path.join(folder, 'base')) || '.';
  return [
    `That took ${duration(seconds)}. In ${out}: the adapter (a PEFT folder), report.html, TensorBoard events, metrics.jsonl.`,
    'Next:',
    `  open ${path.join(out, 'report.html')}`,
    `  npx lowrank generate --model ${base} --adapter ${out} --prompt "${prompt}"`,
    `  npx lowrank merge --model ${base} --adapter ${out} --out ${out}-merged`,
    '  npx lowrank train --model YOUR_MODEL_FOLDER --data YOUR_ROWS.jsonl --out ./out',
  ].join('\n');
}
