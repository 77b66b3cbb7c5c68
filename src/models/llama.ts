import type { Linear } from '../nn/linear.ts';
import { embedding } from '../ops/embedding.ts';
import { gatedMlp } from '../ops/gated_mlp.ts';
import { qkNorm } from '../ops/qk_norm.ts';
import { rmsNorm } from '../ops/rms_norm.ts';
import { ropeInplace } from '../ops/rope.ts';
import { scope } from '../scope.ts';
import type { Tensor } from '../tensor.ts';
import type { ConfigReader } from './config-reader.ts';
import type { Block } from './decoder.ts';
import type { Family, FamilyParts } from './family.ts';
import { llamaTypes, type LlamaSettings, readLlamaConfig } from './llama-config.ts';
import { ropeTables } from './rope-tables.ts';
import type { Planned, WeightPlan } from './weights.ts';

/** Llama and what differs from it by settings only: Mistral, Qwen 2, 2.5 and 3, SmolLM. */
export const llama: Family = {
  types: llamaTypes,
  prefix: 'model.',
  read(type: string, config: ConfigReader) {
    const settings = readLlamaConfig(type, config);
    return { shape: { ...settings, positionsReach: reach(settings) }, plan: (weights) => planLlama(settings, weights) };
  },
};

/** Dynamic rope and YaRN are there to reach beyond the length they were trained on. */
function reach({ rope: { scaling }, maxPositions }: LlamaSettings): number {
  if (scaling.type === 'dynamic') return Math.floor(maxPositions * scaling.factor);
  return scaling.type === 'yarn' ? Math.max(maxPositions, Math.floor(scaling.originalPositions * scaling.factor)) : maxPositions;
}

function planLlama(settings: LlamaSettings, weights: WeightPlan): Planned<FamilyParts> {
  const { vocabSize, hiddenSize, layers, normEps, tied } = settings;
  const planned = {
    table: weights.table('model.embed_tokens.weight', vocabSize, hiddenSize),
    blocks: Array.from({ length: layers }, (_, layer) => planBlock(settings, weights, layer)),
    norm: weights.vector('model.norm.weight', hiddenSize),
    head: tied ? null : weights.linear({ parts: [{ name: 'lm_head', out: vocabSize }], in: hiddenSize, bias: 'none' }),
  };
  return () => {
    const [table, blocks, norm] = [planned.table(), planned.blocks.map((block) => block()), planned.norm()];
    const headLinear = planned.head?.() ?? null;
    const tables = ropeTables(table.device, settings.rope);
    return {
      table,
      blocks,
      headLinear,
      embed: (ids) => embedding(ids, table),
      norm: (x) => rmsNorm(x, norm, normEps),
      ropeTable: (length) => tables.for(length),
      dispose: () => [norm, tables, ...blocks].forEach((owner) => owner.dispose()),
    };
  };
}

interface LlamaLayers {
  readonly qkv: Linear; // q|k|v
  readonly output: Linear;
  readonly gateUp: Linear; // gate|up
  readonly down: Linear;
}

interface LlamaNorms {
  readonly input: Tensor; // [C]
  readonly postAttention: Tensor; // [C]
  readonly query: Tensor | null; // [D]
  readonly key: Tensor | null; // [D]
}

function planBlock(settings: LlamaSettings, weights: WeightPlan, layer: number): Planned<Block & { dispose(): void }> {
  const { hiddenSize: C, intermediateSize: F, heads, kvHeads, headSize: D } = settings;
  const at = `model.layers.${layer}`;
  const part = (name: string, out: number) => ({ name: `${at}.${name}`, out });
  const bias = (has: boolean) => (has ? 'added' : 'none');
  const norms = {
    input: weights.vector(`${at}.input_layernorm.weight`, C),
    postAttention: weights.vector(`${at}.post_attention_layernorm.weight`, C),
    query: settings.qkNorm ? weights.vector(`${at}.self_attn.q_norm.weight`, D) : null,
    key: settings.qkNorm ? weights.vector(`${at}.self_attn.k_norm.weight`, D) : null,
  };
  const qkvParts = [part('self_attn.q_proj', heads * D), part('self_attn.k_proj', kvHeads * D), part('self_attn.v_proj', kvHeads * D)];
  const linears = {
    qkv: weights.linear({ parts: qkvParts, in: C, bias: bias(settings.qkvBias) }),
    output: weights.linear({ parts: [part('self_attn.o_proj', C)], in: heads * D, bias: bias(settings.outputBias) }),
    gateUp: weights.linear({ parts: [part('mlp.gate_proj', F), part('mlp.up_proj', F)], in: C, bias: bias(settings.mlpBias) }),
    down: weights.linear({ parts: [part('mlp.down_proj', C)], in: F, bias: bias(settings.mlpBias) }),
  };
  return () =>
    makeBlock(
      settings,
      { qkv: linears.qkv(), output: linears.output(), gateUp: linears.gateUp(), down: linears.down() },
      { input: norms.input(), postAttention: norms.postAttention(), query: norms.query?.() ?? null, key: norms.key?.() ?? null },
      settings.windows[layer] ?? 0,
    );
}

function makeBlock(settings: LlamaSettings, layers: LlamaLayers, norms: LlamaNorms, window: number): Block & { dispose(): void } {
  const { heads, kvHeads, headSize, normEps } = settings;
  const options = { heads, kvHeads, window, scale: headSize ** -0.5 };
  const normed = (qkv: Tensor): Tensor => (norms.query === null || norms.key === null ? qkv : qkNorm(qkv, norms.query, norms.key, options, normEps));
  return {
    linears: [layers.qkv, layers.output, layers.gateUp, layers.down],
    forward(x, { positions, table, attend }) {
      const h = scope(() => {
        const qkv = normed(layers.qkv.forward(rmsNorm(x, norms.input, normEps)));
        const turned = ropeInplace(qkv, positions, table as Tensor, options);
        return layers.output.forward(attend(turned, options), x);
      });
      return gatedMlp(rmsNorm(h, norms.postAttention, normEps), layers.gateUp, layers.down, h);
    },
    dispose() {
      for (const owner of [...Object.values<Linear>({ ...layers }), ...Object.values<Tensor | null>({ ...norms })]) owner?.dispose();
    },
  };
}
