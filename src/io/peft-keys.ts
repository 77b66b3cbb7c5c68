import { LowrankError, throwFaults } from '../error.ts';

/** Which of an adapter's two matrices: A [rank, in] or B [out, rank]. */
export type LoraPart = 'A' | 'B';

const prefix = 'base_model.model.';

/**
 * The name of an adapter's matrix in `adapter_model.safetensors`.
 *
 * @example
 * ```ts
 * adapterKey('model.layers.0.self_attn.q_proj', 'A'); // 'base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight'
 * ```
 */
export function adapterKey(module: string, part: LoraPart): string {
  return `${prefix}${module}.lora_${part}.weight`;
}

/** What a key of an adapter file stands for; `adapter` is the name that some writers leave in it. */
export type AdapterKey = { module: string; part: LoraPart; adapter: string | null } | { refused: string };

/** What else PEFT stores beside A and B, and what reading it would need; the first that fits says it. */
const extras: readonly [RegExp, string][] = [
  [/\.lora_magnitude_vector(\.|$)/, 'the magnitude of DoRA, which lowrank does not compute'],
  [/\.lora_embedding_[AB](\.|$)/, 'an adapter on an embedding; only linear layers take one'],
  [/\.lora_B\.([^.]+\.)?bias$/, 'the bias of lora_bias; B would need one'],
  [/\.base_layer\.bias$/, 'a trained bias of the base model (bias is not "none"); the base stays frozen here'],
  [/\.base_layer\.weight$/, 'a full weight that PEFT saves when embeddings or lm_head are targets or the vocabulary was resized; the base stays frozen here'],
  [/\.token_adapter\./, 'trained rows of an embedding (trainable_token_indices)'],
  [/\.modules_to_save\./, 'a fully trained copy of a module (modules_to_save)'],
  [/\.(lora_diag|lora_A_std_prior|lora_[A-Z]\w*)(\.|$)/, 'part of another method than plain LoRA'],
  [/\.(weight|bias)$/, 'a full tensor of the base model (modules_to_save or bias); the base stays frozen here'],
];

/** Reads a key back, with or without an adapter's name in it (`lora_A.default.weight`). */
export function parseAdapterKey(key: string): AdapterKey {
  const match = /^base_model\.model\.(.+)\.lora_([AB])(?:\.([^.]+))?\.weight$/.exec(key);
  if (match) return { module: match[1] ?? '', part: match[2] as LoraPart, adapter: match[3] ?? null };
  const extra = extras.find(([pattern]) => pattern.test(key));
  if (extra && !/\.lora_[AB]\.([^.]+\.)?weight$/.test(key)) return { refused: `is ${extra[1]}` };
  return { refused: `is no key of a PEFT adapter; they read ${prefix}<module>.lora_A.weight` };
}

/** The keys of one layer's two matrices. */
export type LayerKeys = Record<LoraPart, string>;

/**
 * Sorts the keys of an adapter file by layer.
 *
 * @throws `ERR_UNSUPPORTED` if the file holds anything beside the A and B of one adapter (each kind told once, with the
 * number of its tensors), `ERR_FORMAT` if a layer has only one of the two.
 * @example
 * ```ts
 * const file = 'out/adapter_model.safetensors';
 * const { tensors } = await readSafetensorsHeader(file);
 * groupAdapterKeys(tensors.keys(), file).get('model.layers.0.self_attn.q_proj')?.A;
 * ```
 */
export function groupAdapterKeys(keys: Iterable<string>, file: string): Map<string, LayerKeys> {
  const layers = new Map<string, Partial<LayerKeys>>();
  const refused = new Map<string, string[]>();
  const adapters = new Set<string | null>();
  for (const key of keys) {
    const parsed = parseAdapterKey(key);
    if ('refused' in parsed) {
      refused.set(parsed.refused, [...(refused.get(parsed.refused) ?? []), key]);
      continue;
    }
    adapters.add(parsed.adapter);
    layers.set(parsed.module, { ...layers.get(parsed.module), [parsed.part]: key });
  }
  const faults = [...refused].map(([why, [first, ...rest]]) => `"${first}"${rest.length > 0 ? ` (and ${rest.length} more)` : ''} ${why}`);
  if (adapters.size > 1) faults.push(`must hold one adapter (it holds ${[...adapters].map((name) => name ?? 'one without a name').join(', ')})`);
  throwFaults('ERR_UNSUPPORTED', file, faults);
  return whole(layers, file);
}

function whole(layers: Map<string, Partial<LayerKeys>>, file: string): Map<string, LayerKeys> {
  const faults: string[] = [];
  for (const [module, { A, B }] of layers) {
    if (A === undefined) faults.push(`"${module}" has B but no A`);
    if (B === undefined) faults.push(`"${module}" has A but no B`);
  }
  if (layers.size === 0) throw new LowrankError('ERR_FORMAT', `${file}: must hold an adapter's tensors (it has none)`);
  throwFaults('ERR_FORMAT', file, faults);
  return layers as Map<string, LayerKeys>;
}
