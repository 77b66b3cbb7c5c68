import type { Device } from '../device.ts';
import { LowrankError } from '../error.ts';
import { launch } from '../kernel.ts';
import type { Linear } from '../nn/linear.ts';
import { attention, attentionCache, attentionCaches, type AttentionOptions, type KeyValueCache } from '../ops/attention.ts';
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
    hiddenEach(batches, checkpointing, enter) {
      check();
      const passes = batches.map((batch, i): Pass => {
        parts.checkLength(batch.length);
        return { ids: batch.ids, run: batchRun(parts, batch), enter: () => enter(i) };
      });
      return scope(() => runByLayers(parts, passes, checkpointing));
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
    decodeEach(ids, caches) {
      check();
      return untaped(() => decodeEach(parts, ids, caches));
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

/** One of several batches that go through the layers together. */
interface Pass {
  readonly ids: Tensor;
  readonly run: Run;
  enter(): void;
}

function runByLayers(parts: DecoderParts, passes: readonly Pass[], checkpointing: Checkpointing): Tensor[] {
  const xs: Tensor[] = [];
  const lastFirst = (body: (pass: Pass, i: number) => Tensor): void => {
    for (let i = passes.length - 1; i >= 0; i--) xs[i] = body(passes[i] as Pass, i);
  };
  lastFirst(({ ids, run, enter }) => (enter(), parts.embed(ids, run.positions)));
  for (const block of parts.blocks) {
    lastFirst(({ run, enter }, i) => {
      const before = xs[i] as Tensor;
      const entered: Block = { linears: block.linears, forward: (x) => (enter(), block.forward(x, run)) };
      const after = runBlock(entered, before, run, checkpointing);
      if (isTemporary(before)) before.dispose();
      return after;
    });
  }
  lastFirst((_, i) => parts.norm(xs[i] as Tensor));
  return xs;
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
    for (const _ of blocks) layers.push({ keys: device.empty(shape, device.info.activations), values: device.empty(shape, device.info.activations) });
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
  checkRoom(cache, ids.length);
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

function checkRoom({ capacity, length }: Cache, more: number): void {
  if (length + more > capacity) {
    throw new LowrankError('ERR_RANGE', `decode: the cache holds ${capacity} positions (it has ${length} and ${more} more are given)`);
  }
}

function decodeEach(parts: DecoderParts, ids: readonly number[], caches: readonly Cache[]): Tensor {
  if (ids.length === 0 || ids.length !== caches.length) {
    throw new LowrankError('ERR_ARGUMENT', `decode: one token for each cache is required (found ${ids.length} tokens, ${caches.length} caches)`);
  }
  if (new Set(caches).size !== caches.length) throw new LowrankError('ERR_ARGUMENT', 'decode: each sequence must have a cache of its own');
  for (const cache of caches) checkRoom(cache, 1);
  const hidden = scope(() => {
    const groups = groupByTable(parts, caches);
    if (groups.length === 1) return decodeRows(parts, ids, caches);
    // Rope that depends on the length of a sequence: each length has a table of its own.
    const rows = parts.device.activation([ids.length, parts.facts.hiddenSize]);
    for (const group of groups) {
      const some = decodeRows(parts, group.map((s) => ids[s] as number), group.map((s) => caches[s] as Cache));
      group.forEach((s, i) => copyRow(rows, s, some, i));
    }
    return rows;
  });
  for (const cache of caches) cache.length++;
  return hidden;
}

/** Sequences that share a table, by their numbers. The longest first: its table serves shorter ones too. */
function groupByTable(parts: DecoderParts, caches: readonly Cache[]): number[][] {
  const groups = new Map<Tensor | null, number[]>();
  const byLength = caches.map((_, s) => s).sort((a, b) => (caches[b] as Cache).length - (caches[a] as Cache).length);
  for (const s of byLength) {
    const table = parts.table((caches[s] as Cache).length + 1);
    groups.set(table, [...(groups.get(table) ?? []), s]);
  }
  return [...groups.values()];
}

function decodeRows(parts: DecoderParts, ids: readonly number[], caches: readonly Cache[]): Tensor {
  const starts = caches.map((cache) => cache.length);
  const tokens = parts.device.tensor(tokenIds(ids, parts.facts.vocabSize));
  const positions = parts.device.tensor(Int32Array.from(starts));
  const table = parts.table(Math.max(...starts) + 1);
  const run = (layer: number): Run => {
    const layers = caches.map((cache) => cache.layers[layer] as KeyValueCache);
    return { positions, table, attend: (qkv, options) => attentionCaches(qkv, layers, starts, options) };
  };
  return runBlocks(parts, tokens, run, 'none');
}

function copyRow(to: Tensor, i: number, from: Tensor, j: number): void {
  launch('copy', to.view([1, to.cols], i * to.cols), from.view([1, from.cols], j * from.cols));
}

function tokenIds(ids: readonly number[], vocabSize: number): Int32Array {
  const wrong = ids.find((id) => !Number.isInteger(id) || id < 0 || id >= vocabSize);
  if (wrong !== undefined) throw new LowrankError('ERR_RANGE', `decode: token ids must be whole numbers from 0 to ${vocabSize - 1} (found ${wrong})`);
  return Int32Array.from(ids);
}
