import { batches, windowsInEpoch, type BatchState, type BatchWindow } from '../data/order.ts';
import { makeBatch, type Batch } from '../data/batch.ts';
import type { Dataset } from '../data/dataset.ts';
import type { Device } from '../device.ts';
import { LowrankError } from '../error.ts';
import { schedule } from '../optim/schedule.ts';
import { findCheckpoints, removeCheckpoints, restoreCheckpoint, saveCheckpoint, type CheckpointParts, type RunState } from './checkpoint.ts';
import { evaluate } from './evaluate.ts';
import type { EndEvent, TrainEvent } from './run-events.ts';
import { runSettings } from './settings.ts';
import { trainStep } from './step.ts';
import type { RunPlan } from './trainer-options.ts';

/** A run under way. */
interface Run extends CheckpointParts {
  readonly plan: RunPlan;
  /** The rate of step n, counted from 0. */
  readonly rate: (step: number) => number;
  readonly emit: (event: TrainEvent) => void;
  readonly signal: AbortSignal;
  state: Mutable<RunState>;
  /** Steps in a row that were not finite. */
  badInARow: number;
  /** Windows in an epoch, of the last one asked for: packing makes it costly to count. */
  epochSize: { readonly epoch: number; readonly windows: number } | null;
  lastLoss: number | null;
  saved: { readonly step: number; readonly folder: string } | null;
}

type Mutable<T> = { -readonly [K in keyof T]: T[K] };

/**
 * Makes a run from where it stands to its end, telling each event as it happens.
 *
 * @throws LowrankError ERR_NONFINITE after `patience` steps in a row that were not finite; what loading, ops and saving throw
 */
export async function runToEnd(plan: RunPlan, emit: (event: TrainEvent) => void, signal: AbortSignal): Promise<EndEvent> {
  const started = performance.now();
  const run = await openRun(plan, emit, signal);
  const done = run.state.step >= plan.steps;
  if (!done) await train(run);
  if (plan.out !== null && !done) await saveRun(run, plan.out);
  // Also when nothing was left to do: a kill may have come between the last checkpoint and this.
  if (plan.out !== null) await plan.adapter.save(plan.out);
  const { step, skipped, tokens, evalLoss } = run.state;
  const reason = done ? 'already-complete' : step >= plan.steps ? 'complete' : 'stopped';
  const seconds = (performance.now() - started) / 1000;
  const end: EndEvent = { type: 'end', step, steps: plan.steps, reason, loss: run.lastLoss, evalLoss, skipped, tokens, seconds, checkpoint: run.saved?.folder ?? null };
  emit(end);
  return end;
}

async function openRun(plan: RunPlan, emit: Run['emit'], signal: AbortSignal): Promise<Run> {
  const { adapter, optimizer, warmup, steps } = plan;
  const parts: CheckpointParts = { adapter, optimizer, settings: runSettings(plan) };
  const fresh: RunState = { step: 0, steps, data: { epoch: 0, position: 0 }, microBatches: 0, optimizerSteps: 0, skipped: 0, lossScale: optimizer.lossScale, tokens: 0, evalLoss: null };
  const run: Run = { ...parts, plan, rate: schedule(plan.schedule, { lr: optimizer.lr, warmup, steps }), emit, signal, state: { ...fresh }, badInARow: 0, epochSize: null, lastLoss: null, saved: null };
  const folder = await whereToResume(plan);
  const notes: string[] = [];
  if (folder !== null) {
    const restored = await restoreCheckpoint(folder, parts);
    run.state = { ...restored.state, steps };
    run.saved = { step: run.state.step, folder };
    notes.push(...restored.notes);
  } else if (plan.resume === false) await clearPast(plan);
  else notes.push(`${plan.out}: there is no checkpoint to resume from, so the run starts at step 1`);
  emit({ type: 'start', step: run.state.step, steps, resumedFrom: folder, notes });
  return run;
}

async function whereToResume({ resume, out }: RunPlan): Promise<string | null> {
  if (typeof resume === 'string') return resume;
  if (!resume || out === null) return null;
  return (await findCheckpoints(out))[0]?.folder ?? null;
}

/** A finished run's checkpoints make room for a new run; those of an unfinished one are somebody's work. */
async function clearPast({ out }: RunPlan): Promise<void> {
  if (out === null) return;
  const newest = (await findCheckpoints(out))[0];
  if (newest !== undefined && newest.step < newest.steps) {
    const found = `checkpoint-${newest.step} of ${newest.steps} steps`;
    throw new LowrankError('ERR_ARGUMENT', `${out}: must not hold an unfinished run (found ${found}): resume it (--resume), remove the folder, or name another`);
  }
  await removeCheckpoints(out);
}

async function train(run: Run): Promise<void> {
  const { plan, state, signal } = run;
  const { saveEvery, evalEvery, evalDataset, out } = plan;
  if (evalDataset !== null && state.step === 0) await measure(run, evalDataset);
  for (const window of batches(plan.dataset, plan.order, state.data)) {
    if (state.step >= plan.steps || signal.aborted) break;
    await makeStep(run, window);
    const last = state.step === plan.steps;
    if (evalDataset !== null && (last || (evalEvery > 0 && state.step % evalEvery === 0))) await measure(run, evalDataset);
    if (out !== null && saveEvery > 0 && state.step % saveEvery === 0) await saveRun(run, out);
    // A fence may resolve in the same turn of the event loop; timers and signals get theirs here.
    await new Promise<void>((resolve) => setImmediate(resolve));
  }
}

async function makeStep(run: Run, window: BatchWindow): Promise<void> {
  const { plan, state } = run;
  const { model, optimizer, clip, checkpointing, layerByLayer } = plan;
  const began = performance.now();
  const lr = run.rate(state.step);
  const { loss, tokens, gradNorm, skipped, reason } = await trainStep(model, optimizer, window.batches, { clip, checkpointing, layerByLayer, lr, dropoutStep: state.microBatches % 2 ** 32 });
  const seconds = (performance.now() - began) / 1000;
  const read = window.batches.reduce((sum, batch) => sum + batch.inputIds.length, 0);
  state.step += 1;
  state.data = window.state;
  state.microBatches += window.batches.length;
  state.optimizerSteps = optimizer.steps;
  state.lossScale = optimizer.lossScale;
  if (!skipped) [state.tokens, run.lastLoss] = [state.tokens + tokens, loss];
  run.emit({ type: 'step', step: state.step, loss, tokens, gradNorm, lr, tokensPerSecond: read / seconds, epoch: epochOf(run, window.state), skipped, memory: memoryOf(model.device) });
  if (reason === 'not finite') await noteNonFinite(run);
  else if (reason === 'overflow') run.emit({ type: 'skip', step: state.step, reason, inARow: run.badInARow, total: (state.skipped += 1) });
  else if (reason === 'no tokens') run.emit({ type: 'skip', step: state.step, reason: 'empty', inARow: run.badInARow, total: state.skipped });
  else run.badInARow = 0;
}

async function noteNonFinite(run: Run): Promise<void> {
  const { state, plan } = run;
  run.badInARow += 1;
  state.skipped += 1;
  run.emit({ type: 'skip', step: state.step, reason: 'nonfinite', inARow: run.badInARow, total: state.skipped });
  if (run.badInARow < plan.patience) return;
  if (plan.out !== null) await saveRun(run, plan.out);
  throw hopeless(run);
}

function hopeless({ plan, state, saved }: Run): LowrankError {
  const first = state.step - plan.patience + 1;
  const remedy = first === 1
    ? 'none was before, so look at the data and the weights: ids that the model never saw, f16 weights that overflow (load them as f32)'
    : 'lower the rate, lengthen the warm-up or clip the gradient (--lr, --warmup, --clip)';
  const kept = saved === null ? 'The adapter is as it was before them' : `${saved.folder} holds the adapter as it was before them (--adapter starts from it)`;
  return new LowrankError('ERR_NONFINITE', `train: loss and gradient must be finite (steps ${first} to ${state.step} were not, and changed nothing): ${remedy}. ${kept}.`);
}

/** Epochs done, with a fraction of four digits. */
function epochOf(run: Run, { epoch, position }: BatchState): number {
  if (position === 0) return epoch;
  if (run.epochSize?.epoch !== epoch) run.epochSize = { epoch, windows: windowsInEpoch(run.plan.dataset, run.plan.order, epoch) };
  return epoch + Math.round((position / run.epochSize.windows) * 1e4) / 1e4;
}

function memoryOf(device: Device): number {
  return device.kind === 'cpu' ? process.memoryUsage.rss() : device.stats().reservedBytes;
}

/** Held-out loss, unless the run is stopped meanwhile: half a measurement is none. */
async function measure(run: Run, dataset: Dataset): Promise<void> {
  const { model, order } = run.plan;
  let cut = false;
  function* untilStopped(): Generator<Batch> {
    for (const batch of inFileOrder(dataset, order.batchSize)) {
      cut ||= run.signal.aborted;
      if (cut) return;
      yield batch;
    }
  }
  const { loss, perplexity, tokens } = await evaluate(model, untilStopped()).catch((error: unknown) => {
    if (cut) return { loss: NaN, perplexity: NaN, tokens: 0 };
    throw error;
  });
  if (cut) return;
  run.state.evalLoss = loss;
  run.emit({ type: 'eval', step: run.state.step, loss, perplexity, tokens });
}

/** All rows of a data set once, `batchSize` a batch, nothing left out. */
export function* inFileOrder(dataset: Dataset, batchSize: number): Generator<Batch> {
  for (let at = 0; at < dataset.length; at += batchSize) {
    yield makeBatch(Array.from({ length: Math.min(batchSize, dataset.length - at) }, (_, i) => dataset.get(at + i)));
  }
}

async function saveRun(run: Run, out: string): Promise<void> {
  const { state, plan } = run;
  if (run.saved?.step === state.step) return;
  const folder = await saveCheckpoint(out, state, run, plan.keep);
  run.saved = { step: state.step, folder };
  run.emit({ type: 'save', step: state.step, folder });
}
