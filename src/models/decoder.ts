import type { Device } from '../device.ts';
import { LowrankError } from '../error.ts';
import type { Linear } from '../nn/linear.ts';
import { attention, attentionCache, type AttentionOptions, type KeyValueCache } from '../ops/attention.ts';
import { linear } from '../ops/linear.ts';
import { isTemporary, keep, scope } from '../scope.ts';
import { activeTape, checkpoint, untaped } from '../tape.ts';
import type { Tensor } from '../tensor.ts';
import type { Cache, Checkpointing, Model, ModelFacts, TokenBatch } from './model.ts';

/** What all blocks of one run share. */
export interface Run {
  readonly positions: Tensor; // [T] i32
  /** Rope's table for this length, [P, E]; null in a model with learned positions. */
  readonly table: Tensor | null;
  /** qkv [T, (H+2G)·D] to [T, H·D], over the batch itself or over a cache. */
  attend(qkv: Tensor, options: AttentionOptions): Tensor;
}

/** One layer. */
export interface Block {
  /** In order of use. */
  readonly linears: readonly Linear[];
  /** x [T, C] to [T, C]. */
  forward(x: Tensor, run: Run): Tensor;
}

/** What a family is made of; the rest of a decoder is the same in all. */
export interface DecoderParts {
  readonly device: Device;
  readonly facts: ModelFacts;
  readonly blocks: readonly Block[];
  readonly head: Model['head'];
  /** The head as a layer of its own; null: it is the embedding. */
  readonly headLinear: Linear | null;
  embed(ids: Tensor, positions: Tensor): Tensor;
  /** The norm behind the last block. */
  norm(x: Tensor): Tensor;
  table(length: number): Tensor | null;
  /** Rejects a length that the model can't have. */
  checkLength(length: number): void;
  dispose(): void;
}

/** A {@link Model} of these parts. */
export function makeDecoder(parts: DecoderParts): Model {
  const { device, facts, blocks, head, headLinear } = parts;
  let disposed = false;
  const check = (): void => {
    if (disposed) throw new LowrankError('ERR_DISPOSED', `${facts.folder}: the model was used after dispose()`);
  };
  return {
    device,
    facts,
    linears: [...blocks.flatMap((block) => block.linears), ...(headLinear === null ? [] : [headLinear])],
    head,
    hidden(batch, checkpointing = 'none') {
      check();
      parts.checkLength(batch.length);
      return scope(() => runBlocks(parts, batch.ids, batchRun(parts, batch), checkpointing));
    },
    logits(hidden) {
      check();
      return head.linear === null ? linear(hidden, { weight: head.weight, bias: null }) : head.linear.forward(hidden);
    },
    newCache(capacity) {
      check();
      return newCache(parts, capacity);
    },
    decode(ids, cache, length) {
      check();
      return untaped(() => decode(parts, ids, cache, length));
    },
    dispose() {
      if (disposed) return;
      disposed = true;
      parts.dispose();
    },
  };
}

function batchRun(parts: DecoderParts, { positions, offsets, length }: TokenBatch): Run {
  return { positions, table: parts.table(length), attend: (qkv, options) => attention(qkv, offsets, options) };
}

function runBlocks(parts: DecoderParts, ids: Tensor, run: Run | ((layer: number) => Run), checkpointing: Checkpointing): Tensor {
  const runOf = typeof run === 'function' ? run : (): Run => run;
  let x = parts.embed(ids, runOf(0).positions);
  parts.blocks.forEach((block, layer) => {
    const before = x;
    x = runBlock(block, before, runOf(layer), checkpointing);
    // Not waiting for the end of the run: without a tape only one block's input is alive at a time.
    if (isTemporary(before)) before.dispose();
  });
  return parts.norm(x);
}

function runBlock(block: Block, x: Tensor, run: Run, checkpointing: Checkpointing): Tensor {
  // Below the lowest adapter there is nothing to go back to, and checkpoint() would record it all the same.
  const trains = activeTape()?.wants(x) === true || block.linears.some(({ lora }) => lora !== null && lora.da !== null);
  if (checkpointing === 'blocks' && trains) return checkpoint((h) => block.forward(h, run), x);
  return scope(() => block.forward(x, run));
}

function newCache({ device, facts, blocks, checkLength }: DecoderParts, capacity: number): Cache {
  if (!Number.isSafeInteger(capacity) || capacity < 1) {
    throw new LowrankError('ERR_ARGUMENT', `newCache: capacity must be a whole number of at least 1 (found ${capacity})`);
  }
  checkLength(capacity);
  const shape = [capacity, facts.kvHeads * facts.headSize];
  const layers: KeyValueCache[] = [];
  scope(() => {
    for (const _ of blocks) layers.push({ keys: device.empty(shape), values: device.empty(shape) });
    for (const { keys, values } of layers) [keys, values].forEach(keep);
  });
  return {
    layers,
    capacity,
    length: 0,
    dispose() {
      for (const { keys, values } of layers) [keys, values].forEach((tensor) => tensor.dispose());
    },
  };
}

function decode(parts: DecoderParts, ids: readonly number[], cache: Cache, length?: number): Tensor {
  const start = cache.length;
  const end = start + ids.length;
  if (ids.length === 0) throw new LowrankError('ERR_ARGUMENT', 'decode: at least one token is required (found none)');
  if (end > cache.capacity) {
    throw new LowrankError('ERR_RANGE', `decode: the cache holds ${cache.capacity} positions (it has ${start} and ${ids.length} more are given)`);
  }
  const hidden = scope(() => {
    const tokens = parts.device.tensor(tokenIds(ids, parts.facts.vocabSize));
    const positions = parts.device.tensor(Int32Array.from(ids, (_, i) => start + i));
    const table = parts.table(Math.max(end, length ?? 0));
    const run = (layer: number): Run => ({
      positions,
      table,
      attend: (qkv, options) => attentionCache(qkv, cache.layers[layer] as KeyValueCache, start, options),
    });
    return runBlocks(parts, tokens, run, 'none');
  });
  cache.length = end;
  return hidden;
}

function tokenIds(ids: readonly number[], vocabSize: number): Int32Array {
  const wrong = ids.find((id) => !Number.isInteger(id) || id < 0 || id >= vocabSize);
  if (wrong !== undefined) throw new LowrankError('ERR_RANGE', `decode: token ids must be whole numbers from 0 to ${vocabSize - 1} (found ${wrong})`);
  return Int32Array.from(ids);
}
