import type { Batch } from '../data/batch.ts';
import { LowrankError } from '../error.ts';
import { activeAdapter } from '../lora/model-adapters.ts';
import type { Model } from '../models/model.ts';
import { keep, scope } from '../scope.ts';
import { untaped } from '../tape.ts';
import type { Tensor } from '../tensor.ts';
import { tokenLoss, uploadBatch } from './token-loss.ts';

/** How well a model predicts held-out data. */
export interface Evaluation {
  /** Mean cross entropy of a token, in nats. */
  readonly loss: number;
  /** e^loss */
  readonly perplexity: number;
  readonly tokens: number;
}

/**
 * Loss of a model, with its active adapter and without dropout, over batches.
 *
 * @throws LowrankError ERR_ARGUMENT if the batches hold no token to predict; ERR_RANGE for token ids that the model doesn't have
 * @example
 * ```ts
 * const { loss, perplexity } = await evaluate(model, [batch]);
 * ```
 */
export async function evaluate(model: Model, batches: Iterable<Batch> | AsyncIterable<Batch>): Promise<Evaluation> {
  let [sum, tokens] = [0, 0];
  for await (const batch of batches) {
    if (batch.tokens === 0) continue;
    using loss = keep(model.device.empty([1]));
    queueLoss(model, batch, loss);
    sum += (await loss.data())[0] as number;
    tokens += batch.tokens;
  }
  if (tokens === 0) throw new LowrankError('ERR_ARGUMENT', 'evaluate: at least one token must have a label (found none)');
  const loss = sum / tokens;
  return { loss, perplexity: Math.exp(loss), tokens };
}

function queueLoss(model: Model, batch: Batch, loss: Tensor): void {
  const adapter = activeAdapter(model);
  const mode = adapter?.mode ?? 'eval';
  if (adapter !== null) adapter.mode = 'eval';
  try {
    untaped(() => scope(() => {
      const { targets, ...rows } = uploadBatch(model.device, batch);
      tokenLoss(model, model.hidden(rows), { targets, loss, scale: 1 }, 'none');
    }));
  } finally {
    if (adapter !== null) adapter.mode = mode;
  }
}
