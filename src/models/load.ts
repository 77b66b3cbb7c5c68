import type { Device, Weight } from '../device.ts';
import { LowrankError } from '../error.ts';
import { openShards } from '../io/shards.ts';
import type { Linear } from '../nn/linear.ts';
import { type ConfigReader, readModelConfig, shown } from './config-reader.ts';
import { makeDecoder } from './decoder.ts';
import type { Family, FamilyParts, FamilyShape } from './family.ts';
import { gpt2 } from './gpt2.ts';
import { llama } from './llama.ts';
import type { Model, ModelFacts } from './model.ts';
import { chooseWeightMemory } from './weight-memory.ts';
import { type WeightDtype, WeightPlan } from './weights.ts';

const families: readonly Family[] = [llama, gpt2];

/** Every `model_type` that {@link loadModel} takes. */
export const supportedModels: readonly string[] = families.flatMap(({ types }) => types);

/** Where a model is loaded to, and as what. */
export interface LoadOptions {
  readonly device: Device;
  /** Converts the weights where the files have another dtype; without it they stay as stored, in the mapped files. */
  readonly weights?: WeightDtype;
  /**
   * Bytes of the device's memory that training or whatever comes next will need beside the weights, for a device that chooses by it whether
   * weights take turns (`weightMemory: 'auto'`). Default: a quarter of what is free.
   */
  readonly reserve?: number | ((facts: ModelFacts) => number);
}

/**
 * Opens the model of a Hugging Face folder: config.json and safetensors, in one file or in shards. The weights are frozen and
 * read from the mapped files. Dropout rates of the configuration have no part in it: the adapter has its own.
 *
 * @throws LowrankError ERR_UNSUPPORTED for a model or setting that isn't supported; ERR_FORMAT with everything that is wrong or
 * missing; ERR_FILE, ERR_MEMORY
 * @example
 * ```ts
 * import { loadModel, openDevice } from 'lowrank';
 * await using device = await openDevice('cpu');
 * const model = await loadModel('./SmolLM-135M', { device });
 * console.log(model.facts.family, model.facts.parameters);
 * model.dispose();
 * ```
 */
export async function loadModel(folder: string, { device, weights: dtype, reserve }: LoadOptions): Promise<Model> {
  if (dtype !== undefined && !['f16', 'bf16', 'f32'].includes(dtype)) {
    throw new LowrankError('ERR_ARGUMENT', `loadModel: weights must be f16, bf16 or f32 (found ${String(dtype)})`);
  }
  const config = await readModelConfig(folder);
  const { type, family } = familyOf(config);
  const { shape, plan } = family.read(type, config);
  config.finish();
  const weights = new WeightPlan({ device, shards: await openShards(folder), prefix: family.prefix, dtype: dtype ?? null });
  const make = plan(weights);
  const factsWith = (own: string): ModelFacts => factsOf({ folder, type, shape, config, parameters: weights.parameters, dtype: own });
  const model = weights.build(() => {
    const bytes = typeof reserve === 'function' ? reserve(factsWith(weights.linearDtype ?? 'f32')) : reserve;
    if (!weights.converts) chooseWeightMemory(device, weights.needs(shape.tied ? { rows: shape.vocabSize, cols: shape.hiddenSize } : null), bytes);
    return assemble(device, make(), factsWith);
  });
  try {
    await device.fence();
  } catch (error) {
    model.dispose();
    throw error;
  }
  return model;
}

function familyOf(config: ConfigReader): { type: string; family: Family } {
  const type = config.get('model_type');
  const family = families.find(({ types }) => types.includes(type as string));
  if (family !== undefined) return { type: type as string, family };
  throw new LowrankError('ERR_UNSUPPORTED', `${config.file}: "model_type" must be one of ${supportedModels.join(', ')} (${shown(type)})`);
}

function assemble(device: Device, parts: FamilyParts, factsWith: (dtype: string) => ModelFacts): Model {
  const { table, headLinear, blocks } = parts;
  const tied = headLinear === null ? device.weight([table]) : null;
  const facts = factsWith(blocks[0]?.linears[0]?.weight.dtype ?? table.dtype);
  return makeDecoder({
    device,
    facts,
    blocks,
    headLinear,
    head: headOf(tied, headLinear),
    embed: (ids, positions) => parts.embed(ids, positions),
    norm: (x) => parts.norm(x),
    table: (length) => parts.ropeTable(length),
    checkLength(length) {
      const most = parts.positionRows ?? Infinity;
      if (length > most) throw new LowrankError('ERR_RANGE', `${facts.family}: a sequence may have ${most} positions (this one has ${length})`);
    },
    dispose() {
      tied?.dispose();
      headLinear?.dispose();
      table.dispose();
      parts.dispose();
    },
  });
}

/** Merging replaces a Linear's weight, and adapters come and go: both are looked up at each use. */
function headOf(tied: Weight | null, linear: Linear | null): Model['head'] {
  return {
    get weight() {
      return tied ?? (linear as Linear).weight;
    },
    get linear() {
      return linear !== null && linear.lora !== null ? linear : null;
    },
  };
}

interface FactsSource {
  readonly folder: string;
  readonly type: string;
  readonly shape: FamilyShape;
  readonly config: ConfigReader;
  readonly parameters: number;
  readonly dtype: string;
}

function factsOf({ folder, type, shape, config, parameters, dtype }: FactsSource): ModelFacts {
  const { hiddenSize, layers, heads, kvHeads, headSize, intermediateSize, vocabSize, tied, positionsReach } = shape;
  const sizes = { hiddenSize, layers, heads, kvHeads, headSize, intermediateSize, vocabSize, maxPositions: positionsReach };
  return { family: type, folder, ...sizes, tied, parameters, dtype, outputHead: 'lm_head', config: config.json };
}
