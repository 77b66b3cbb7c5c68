import type { Batch } from '../data/batch.ts';
import { LowrankError } from '../error.ts';
import type { Adapter } from '../lora/adapter.ts';
import { activeAdapter } from '../lora/model-adapters.ts';
import type { Checkpointing, Model } from '../models/model.ts';
import { fillInplace } from '../ops/elementwise.ts';
import { nextLossScale } from '../optim/loss-scale.ts';
import type { Optimizer } from '../optim/optimizer.ts';
import { keep, scope } from '../scope.ts';
import { Tape } from '../tape.ts';
import type { Tensor } from '../tensor.ts';
import { warnOfRefusedGraphs } from './graph-warning.ts';
import { microBatchesTogether } from './together.ts';
import { tokenLoss, uploadBatch, type UploadedBatch } from './token-loss.ts';

/** How one optimizer step is made. */
export interface TrainStepOptions {
  /** Greatest norm of the whole gradient; 0 (the default): not clipped. */
  readonly clip?: number;
  /** Whether blocks are run again on the way back instead of keeping what they save; `'none'`. */
  readonly checkpointing?: Checkpointing;
  /**
   * Whether the micro-batches go through each layer together, forward and back, so that a weight is brought once for all of them; each
   * keeps what it saves until the way back comes to it. By default those do, as many as memory has room for, whose weights don't all fit
   * (see `weightMemory` of openDevice) where blocks are checkpointed. Results are the same bits.
   */
  readonly layerByLayer?: boolean | null;
  /** Of the first micro-batch, the others follow; otherwise they go on from `adapter.dropoutStep`. */
  readonly dropoutStep?: number;
  /** The rate of this step; otherwise the optimizer's. */
  readonly lr?: number;
}

/** What one optimizer step came to. */
export interface TrainStepResult {
  /** Mean over the trained tokens of all micro-batches, before the update; NaN without tokens. */
  readonly loss: number;
  readonly tokens: number;
  /** Of the whole gradient, before clipping. */
  readonly gradNorm: number;
  /** Whether nothing was changed, and why. `overflow`: the gradient left f16's range; the next step's loss is scaled by half as much. */
  readonly skipped: boolean;
  readonly reason: 'no tokens' | 'not finite' | 'overflow' | null;
  /** The most bytes that were held for a backward pass. */
  readonly savedBytes: number;
}

/**
 * One optimizer step of the active adapter over one or several micro-batches. The loss is the mean over the tokens of all of them, so
 * how they are cut makes no difference. The host waits once, for losses and gradient norm; a loss or gradient that is not finite
 * changes nothing, and neither does a window without tokens.
 *
 * @throws LowrankError ERR_ARGUMENT if the optimizer isn't the active adapter's; ERR_RANGE for token ids that the model doesn't have;
 * ERR_MEMORY. Parameters are unchanged then.
 * @example
 * ```ts
 * const { loss, gradNorm, skipped } = await trainStep(model, optimizer, batch, { clip: 1, checkpointing: 'blocks' });
 * ```
 */
export async function trainStep(model: Model, optimizer: Optimizer, batch: Batch | readonly Batch[], options: TrainStepOptions = {}): Promise<TrainStepResult> {
  const window = 'tokens' in batch ? [batch] : batch;
  const adapter = trainedAdapter(model, optimizer);
  const tokens = window.reduce((sum, each) => sum + each.tokens, 0);
  if (tokens === 0) return { loss: NaN, tokens, gradNorm: 0, skipped: true, reason: 'no tokens', savedBytes: 0 };
  // [micro + 1]: the loss of each micro-batch, then Σ g². One download brings all.
  using report = keep(model.device.empty([window.length + 1]));
  const savedBytes = inTraining(adapter, () => queueStep({ model, adapter, optimizer, window, tokens, report }, options));
  const numbers = await report.data().catch((failure: unknown) => {
    optimizer.steps -= 1; // ops behind a failure don't run
    throw failure;
  });
  warnOfRefusedGraphs(model.device);
  return readReport(numbers, { tokens, savedBytes, optimizer });
}

interface Step {
  readonly model: Model;
  readonly adapter: Adapter;
  readonly optimizer: Optimizer;
  readonly window: readonly Batch[];
  readonly tokens: number;
  readonly report: Tensor;
}

function trainedAdapter(model: Model, optimizer: Optimizer): Adapter {
  const adapter = activeAdapter(model);
  if (adapter === null) throw new LowrankError('ERR_ARGUMENT', 'trainStep: the model must have an active adapter (none is; see attachLora, setAdapter)');
  if (adapter.parameters() === optimizer.arena) return adapter;
  throw new LowrankError('ERR_ARGUMENT', `trainStep: the optimizer must be the active adapter's (${adapter.name} is active, the optimizer was made for other parameters)`);
}

function inTraining<T>(adapter: Adapter, body: () => T): T {
  const before = adapter.mode;
  adapter.mode = 'train';
  try {
    return body();
  } finally {
    adapter.mode = before;
  }
}

/** Queues everything; returns the most bytes that a tape held. */
function queueStep(step: Step, { clip = 0, checkpointing = 'none', layerByLayer = null, dropoutStep, lr }: TrainStepOptions): number {
  const { model, adapter, optimizer, window, report } = step;
  if (dropoutStep !== undefined) adapter.dropoutStep = dropoutStep;
  return scope(() => {
    fillInplace(report, 0);
    optimizer.arena.zeroGradients();
    const first = adapter.dropoutStep;
    const micros = window.map((batch, i): MicroBatch => ({ batch, loss: report.view([1], i), dropoutStep: (first + i) % 2 ** 32 })).filter(({ batch }) => batch.tokens > 0);
    const saved = inGroups(micros, microBatchesTogether(model, adapter, window, { checkpointing, layerByLayer })).map((group) => backward(step, group, checkpointing));
    adapter.dropoutStep = (first + window.length) % 2 ** 32;
    optimizer.step({ losses: report.view([window.length]), clip, lossScale: scaleOf(optimizer), sumSquares: report.view([1], window.length) }, lr);
    return Math.max(...saved);
  });
}

interface MicroBatch {
  readonly batch: Batch;
  readonly loss: Tensor;
  readonly dropoutStep: number;
}

function inGroups<T>(all: readonly T[], size: number): T[][] {
  return Array.from({ length: Math.ceil(all.length / size) }, (_, i) => all.slice(i * size, (i + 1) * size));
}

/** Queues micro-batches, layer by layer; their gradients are added to the arena's, the first one's first. */
function backward({ model, adapter, optimizer, tokens }: Step, micros: readonly MicroBatch[], checkpointing: Checkpointing): number {
  return scope(() => {
    using tape = new Tape();
    const rows = micros.map(({ batch }) => uploadBatch(model.device, batch));
    const enter = (i: number): void => void (adapter.dropoutStep = (micros[i] as MicroBatch).dropoutStep);
    tape.record(() => {
      const hidden = model.hiddenEach(rows, checkpointing, enter);
      for (const [i, { loss }] of [...micros.entries()].reverse()) {
        enter(i);
        tokenLoss(model, hidden[i] as Tensor, { targets: (rows[i] as UploadedBatch).targets, loss, scale: scaleOf(optimizer) / tokens }, 'wanted');
      }
    });
    const { savedBytes } = tape;
    tape.backward(micros.map(({ loss }) => loss), micros.map(() => model.device.empty([1]))); // the loss looks at no seed
    return savedBytes;
  });
}

function readReport(numbers: Float32Array, { tokens, savedBytes, optimizer }: { tokens: number; savedBytes: number; optimizer: Optimizer }): TrainStepResult {
  const losses = numbers.subarray(0, -1);
  const squares = numbers[numbers.length - 1] as number;
  const skipped = !numbers.every(Number.isFinite); // as the gate on the device asks
  if (skipped) optimizer.steps -= 1;
  const loss = losses.reduce((sum, each) => sum + each, 0) / tokens;
  const scale = scaleOf(optimizer);
  // A loss is made before it is scaled; and a gradient that is too large even unscaled won't be saved by a smaller scale.
  const overflow = skipped && scale > 1 && losses.every(Number.isFinite);
  if (optimizer.lossScale !== null) optimizer.lossScale = nextLossScale(optimizer.lossScale, !skipped);
  return { loss, tokens, gradNorm: Math.sqrt(squares) / scale, skipped, reason: overflow ? 'overflow' : skipped ? 'not finite' : null, savedBytes };
}

function scaleOf({ lossScale }: Optimizer): number {
  return lossScale?.scale ?? 1;
}
