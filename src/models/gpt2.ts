import type { Linear } from '../nn/linear.ts';
import { embedding } from '../ops/embedding.ts';
import { gelu, type GeluForm } from '../ops/gelu.ts';
import { layerNorm } from '../ops/layer_norm.ts';
import { scope } from '../scope.ts';
import type { Tensor } from '../tensor.ts';
import type { ConfigReader } from './config-reader.ts';
import type { Block } from './decoder.ts';
import { type Family, type FamilyParts, type FamilyShape, refuseCommon } from './family.ts';
import type { Planned, WeightPlan } from './weights.ts';

/** GPT-2: learned positions, layer norms, gelu, and linears stored as [in, out]. */
export const gpt2: Family = {
  types: ['gpt2'],
  prefix: 'transformer.',
  read(_type: string, config: ConfigReader) {
    const settings = readSettings(config);
    return { shape: settings, plan: (weights) => planGpt2(settings, weights) };
  },
};

interface Gpt2Settings extends FamilyShape {
  readonly normEps: number;
  readonly form: GeluForm;
  /** What q·k is multiplied by. */
  readonly scale: number;
}

const forms: Readonly<Record<string, GeluForm>> = { gelu: 'erf', gelu_new: 'tanh', gelu_pytorch_tanh: 'tanh', gelu_fast: 'tanh' };

function readSettings(config: ConfigReader): Gpt2Settings {
  refuseCommon(config);
  config.mustBe('scale_attn_by_inverse_layer_idx', false);
  const activation = config.text('activation_function', 'gelu_new');
  const form = Object.hasOwn(forms, activation) ? forms[activation] : undefined;
  if (form === undefined) config.refuse(`"activation_function" must be one of ${Object.keys(forms).join(', ')} (it is ${JSON.stringify(activation)})`);
  const [hiddenSize, heads] = [config.whole('n_embd'), config.whole('n_head')];
  if (hiddenSize % heads !== 0) config.fault(`"n_embd" must be a multiple of "n_head" (${hiddenSize} and ${heads})`);
  const headSize = Math.floor(hiddenSize / heads);
  return {
    vocabSize: config.whole('vocab_size'),
    intermediateSize: config.whole('n_inner', { fallback: 4 * hiddenSize }),
    layers: config.whole('n_layer'),
    ...{ hiddenSize, heads, headSize, kvHeads: heads },
    positionsReach: config.whole('n_positions', { fallback: 1024 }),
    tied: config.flag('tie_word_embeddings', true),
    normEps: config.positive('layer_norm_epsilon', 1e-5),
    form: form ?? 'tanh',
    scale: config.flag('scale_attn_weights', true) ? headSize ** -0.5 : 1,
  };
}

interface Norm {
  readonly weight: Tensor; // [C]
  readonly bias: Tensor; // [C]
}

function planNorm(weights: WeightPlan, name: string, size: number): Planned<Norm> {
  const [weight, bias] = [weights.vector(`${name}.weight`, size), weights.vector(`${name}.bias`, size)];
  return () => ({ weight: weight(), bias: bias() });
}

function planGpt2(settings: Gpt2Settings, weights: WeightPlan): Planned<FamilyParts> {
  const { vocabSize, hiddenSize, layers, normEps, positionsReach, tied } = settings;
  const planned = {
    table: weights.table('transformer.wte.weight', vocabSize, hiddenSize),
    positions: weights.table('transformer.wpe.weight', positionsReach, hiddenSize),
    blocks: Array.from({ length: layers }, (_, layer) => planBlock(settings, weights, layer)),
    norm: planNorm(weights, 'transformer.ln_f', hiddenSize),
    head: tied ? null : weights.linear({ parts: [{ name: 'lm_head', out: vocabSize }], in: hiddenSize, bias: 'none' }),
  };
  return () => {
    const [table, positionTable, norm] = [planned.table(), planned.positions(), planned.norm()];
    const [blocks, headLinear] = [planned.blocks.map((block) => block()), planned.head?.() ?? null];
    return {
      table,
      blocks,
      headLinear,
      positionRows: positionsReach,
      embed: (ids, positions) => embedding(ids, table, { positions, table: positionTable }),
      norm: (x) => layerNorm(x, norm.weight, norm.bias, normEps),
      ropeTable: () => null,
      dispose: () => [positionTable, norm.weight, norm.bias, ...blocks].forEach((owner) => owner.dispose()),
    };
  };
}

interface Gpt2Layers {
  readonly qkv: Linear; // c_attn: one matrix of 3C outputs, q|k|v
  readonly output: Linear;
  readonly up: Linear;
  readonly down: Linear;
}

function planBlock(settings: Gpt2Settings, weights: WeightPlan, layer: number): Planned<Block & { dispose(): void }> {
  const { hiddenSize: C, intermediateSize: F } = settings;
  const at = `transformer.h.${layer}`;
  const linear = (name: string, width: number, out: number) =>
    weights.linear({ parts: [{ name: `${at}.${name}`, out }], in: width, bias: 'added', order: 'in_out' });
  const [first, second] = [planNorm(weights, `${at}.ln_1`, C), planNorm(weights, `${at}.ln_2`, C)];
  const [qkv, output] = [linear('attn.c_attn', C, 3 * C), linear('attn.c_proj', C, C)];
  const [up, down] = [linear('mlp.c_fc', C, F), linear('mlp.c_proj', F, C)];
  return () => makeBlock(settings, { qkv: qkv(), output: output(), up: up(), down: down() }, [first(), second()]);
}

function makeBlock(settings: Gpt2Settings, layers: Gpt2Layers, [first, second]: readonly [Norm, Norm]): Block & { dispose(): void } {
  const { heads, kvHeads, normEps, form, scale } = settings;
  const normed = (x: Tensor, { weight, bias }: Norm): Tensor => layerNorm(x, weight, bias, normEps);
  return {
    linears: [layers.qkv, layers.output, layers.up, layers.down],
    forward(x, { attend }) {
      const h = scope(() => layers.output.forward(attend(layers.qkv.forward(normed(x, first)), { heads, kvHeads, window: 0, scale }), x));
      return layers.down.forward(gelu(layers.up.forward(normed(h, second)), form), h);
    },
    dispose() {
      for (const owner of [...Object.values<Linear>({ ...layers }), first.weight, first.bias, second.weight, second.bias]) owner.dispose();
    },
  };
}
