import type { ActivationDtype } from '../device.ts';
import type { Adapter } from '../lora/adapter.ts';
import type { LoraSite } from '../lora/layout.ts';
import type { Checkpointing, Model, ModelFacts } from '../models/model.ts';
import { makesAgain } from '../remade.ts';

/** What a run holds, in bytes. */
export interface MemoryEstimate {
  /** Frozen weights. On the CPU they are mapped from their files and shared with the page cache: the system can take them back. */
  readonly weights: number;
  /** Parameters, gradients and AdamW's two moments, f32 each. */
  readonly adapter: number;
  /** What the forward pass keeps for the backward pass. */
  readonly activations: number;
  /** Gradients on their way through one block, and its recomputation with checkpointing. */
  readonly working: number;
  /** All but the weights. */
  readonly total: number;
}

export interface RunSize {
  /** Tokens of one micro-batch. */
  readonly tokens: number;
  readonly checkpointing: Checkpointing;
  /** How many micro-batches go through the layers together; 1. */
  readonly together?: number;
}

/**
 * The memory of training, from what each op saves (in numbers by token; C hidden size, F intermediate size, H heads and G key-value
 * heads of size D, R ranks of all parts of a joined projection):
 *
 *   block   2C + 2    the inputs of both norms, and a factor of each
 *           (H+2G)D   q | k | v for attention        HD + H   its output and log-sum-exp
 *           2F        gate | up (GPT-2: F)
 *           R         u of each adapted projection, and its input unless that is made again (see Remade) or something else has
 *                     saved it: C for q|k|v and for gate|up, F for down, nothing for the output projection (attention's output)
 *   ends    2C        the last norm's input and the loss's gradient
 *
 * Activations are f32, or of 16 bits in rows with spare columns; factors, log-sum-exp and u are f32 always.
 * The logits never exist as a whole, unless the output head is adapted (then V). With checkpointing a block keeps its input, C,
 * and one block at a time is whole. On the way back a block needs up to C + 2F more. Held against `device.stats()` in a test. What the
 * kernels pack and Node itself come on top: about 100 MiB.
 */
export function estimateMemory(model: Model, adapter: Adapter, { tokens, checkpointing, together = 1 }: RunSize): MemoryEstimate {
  const { hiddenSize: C, intermediateSize: F, layers, vocabSize } = model.facts;
  const gated = isGated(model) ? 2 * F : F;
  const head = adapter.sites.some(({ linear }) => linear.parts[0]?.name === model.facts.outputHead);
  const row = rowBytes(model.device.info.activations);
  const sites = adapter.sites.filter(({ linear }) => linear.parts[0]?.name !== model.facts.outputHead);
  const block = blockBytes(model, row) + sites.reduce((sum, site) => sum + siteBytes(site, row, makesAgain(model.device.kind)), 0) / layers;
  const kept = layers * (checkpointing === 'none' ? block : row(C));
  const activations = together * tokens * (kept + 2 * row(C) + (head ? row(vocabSize) : 0));
  const working = tokens * (row(C) + row(gated) + (checkpointing === 'none' ? 0 : block));
  const own = 16 * adapter.parameters().size;
  return { weights: weightBytes(model), adapter: own, activations, working, total: own + activations + working };
}

/** An upper bound of `total` before a model is loaded: with gated blocks, all of their projections adapted at `rank`. */
export function memoryBeforehand(facts: ModelFacts, dtype: ActivationDtype, rank: number, { tokens, checkpointing, together = 1 }: RunSize): number {
  const { hiddenSize: C, intermediateSize: F, layers, heads, kvHeads, headSize } = facts;
  const [queries, keys] = [heads * headSize, kvHeads * headSize];
  const row = rowBytes(dtype);
  const block = 4 * row(C) + row(queries + 2 * keys) + row(queries) + row(2 * F) + row(F) + 4 * (2 + heads + 7 * rank);
  const kept = layers * (checkpointing === 'none' ? block : row(C)) + 2 * row(C);
  const working = row(C) + row(2 * F) + (checkpointing === 'none' ? 0 : block);
  const own = 16 * rank * layers * (2 * (C + queries) + 2 * (C + keys) + 3 * (C + F));
  return own + tokens * (together * kept + working);
}

function isGated({ linears }: Model): boolean {
  return linears.some(({ parts }) => parts.some(({ name }) => name.endsWith('gate_proj')));
}

type RowBytes = (cols: number) => number;

/** What a row of an activation takes: with 16 bits, up to the next 64 columns after at least 64 spare ones (native/core/tensor.h). */
function rowBytes(dtype: ActivationDtype): RowBytes {
  return dtype === 'f32' ? (cols) => 4 * cols : (cols) => 2 * 64 * Math.ceil((cols + 64) / 64);
}

/** What a block saves whether or not something in it is adapted. */
function blockBytes(model: Model, row: RowBytes): number {
  const { hiddenSize: C, intermediateSize: F, heads: H, kvHeads: G, headSize: D } = model.facts;
  return 2 * row(C) + row((H + 2 * G) * D) + row(H * D) + row(isGated(model) ? 2 * F : F) + 4 * (2 + H);
}

/** What an adapted projection saves beyond that. */
function siteBytes({ linear, modules }: LoraSite, row: RowBytes, remakes: boolean): number {
  const ranks = modules.reduce((sum, module) => sum + (module?.rank ?? 0), 0);
  const readsAttention = /(o_proj|attn\.c_proj)$/.test(linear.parts[0]?.name ?? '');
  return 4 * ranks + (remakes || readsAttention ? 0 : row(linear.inFeatures));
}

const widths: Readonly<Record<string, number>> = { f32: 4, f16: 2, bf16: 2 };

/** What the frozen weights take as they are stored. */
export function weightBytes({ facts }: Model): number {
  return facts.parameters * (widths[facts.dtype] ?? 4);
}
