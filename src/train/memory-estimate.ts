import type { Adapter } from '../lora/adapter.ts';
import type { LoraSite } from '../lora/layout.ts';
import type { Checkpointing, Model } from '../models/model.ts';

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
}

/**
 * The memory of training, from what each op saves (f32, by token; C hidden size, F intermediate size, H heads and G key-value
 * heads of size D, R ranks of all parts of a joined projection):
 *
 *   block   2C + 2    the inputs of both norms, and a factor of each
 *           (H+2G)D   q | k | v for attention        HD + H   its output and log-sum-exp
 *           2F        gate | up (GPT-2: F)
 *           R         u of each adapted projection, and its input where nothing else has saved that: C for q|k|v and for
 *                     gate|up, F for down, nothing for the output projection (attention's output)
 *   ends    2C        the last norm's input and the loss's gradient
 *
 * The logits never exist as a whole, unless the output head is adapted (then V). With checkpointing a block keeps its input, C,
 * and one block at a time is whole. On the way back a block needs up to C + 2F more. Held against `device.stats()` in a test. What the
 * kernels pack and Node itself come on top: about 100 MiB.
 */
export function estimateMemory(model: Model, adapter: Adapter, { tokens, checkpointing }: RunSize): MemoryEstimate {
  const { hiddenSize: C, intermediateSize: F, layers, vocabSize } = model.facts;
  const gated = isGated(model) ? 2 * F : F;
  const head = adapter.sites.some(({ linear }) => linear.parts[0]?.name === model.facts.outputHead);
  const block = blockFloats(model) + adapter.sites.filter(({ linear }) => linear.parts[0]?.name !== model.facts.outputHead).reduce((sum, site) => sum + siteFloats(site), 0) / layers;
  const kept = checkpointing === 'none' ? layers * block : layers * C;
  const activations = 4 * tokens * (kept + 2 * C + (head ? vocabSize : 0));
  const working = 4 * tokens * (C + gated + (checkpointing === 'none' ? 0 : block));
  const own = 16 * adapter.parameters().size;
  return { weights: weightBytes(model), adapter: own, activations, working, total: own + activations + working };
}

function isGated({ linears }: Model): boolean {
  return linears.some(({ parts }) => parts.some(({ name }) => name.endsWith('gate_proj')));
}

/** What a block saves whether or not something in it is adapted. */
function blockFloats(model: Model): number {
  const { hiddenSize: C, intermediateSize: F, heads: H, kvHeads: G, headSize: D } = model.facts;
  return 2 * C + 2 + (H + 2 * G) * D + H * D + H + (isGated(model) ? 2 * F : F);
}

/** What an adapted projection saves beyond that. */
function siteFloats({ linear, modules }: LoraSite): number {
  const ranks = modules.reduce((sum, module) => sum + (module?.rank ?? 0), 0);
  const readsAttention = /(o_proj|attn\.c_proj)$/.test(linear.parts[0]?.name ?? '');
  return ranks + (readsAttention ? 0 : linear.inFeatures);
}

const widths: Readonly<Record<string, number>> = { f32: 4, f16: 2, bf16: 2 };

function weightBytes({ facts }: Model): number {
  return facts.parameters * (widths[facts.dtype] ?? 4);
}
