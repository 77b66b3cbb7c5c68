import { existsSync, statSync } from 'node:fs';
import path from 'node:path';
import type { Command } from 'commander';
import { openDevice } from '../device.ts';
import { LowrankError } from '../error.ts';
import { readPeftFolder } from '../io/peft.ts';
import { readSafetensorsHeader } from '../io/safetensors.ts';
import { tensorBytes } from '../io/safetensors-dtypes.ts';
import { attachLora } from '../lora/attach.ts';
import { loadModel } from '../models/load.ts';
import { estimateMemory } from '../train/memory-estimate.ts';
import { findCheckpoints } from '../train/checkpoint.ts';
import { bytes, count, table } from './format.ts';
import { rowLength } from './rows.ts';
import { targetList, wholeNumber } from './usage.ts';

interface InspectFlags {
  readonly batchSize: number;
  readonly seqLength?: number;
  readonly rank: number;
  readonly targets: string[] | string;
  readonly json?: boolean;
}

export function addInspect(program: Command): void {
  program
    .command('inspect')
    .description('describe a model folder, an adapter folder or a safetensors file; of a model, estimate the memory of training it')
    .argument('<path>', 'folder or file')
    .option('--batch-size <n>', 'rows of a micro-batch, for the estimate', wholeNumber(1), 4)
    .option('--seq-length <n>', 'tokens of a row (default: 512, or what the model takes)', wholeNumber(2))
    .option('--rank <n>', "the adapter's, for the estimate", wholeNumber(1), 8)
    .option('--targets <names>', 'layers to adapt, for the estimate', targetList, 'all-linear')
    .option('--json', 'one JSON object on stdout')
    .action(inspect);
}

/** Names and values; numbers stay numbers for `--json`. */
type Description = Record<string, string | number>;

async function inspect(at: string, flags: InspectFlags): Promise<void> {
  const { description, text } = await describe(at, flags);
  process.stdout.write(flags.json ? `${JSON.stringify(description)}\n` : text);
}

interface Described {
  readonly description: object;
  readonly text: string;
}

async function describe(at: string, flags: InspectFlags): Promise<Described> {
  if (!existsSync(at)) throw new LowrankError('ERR_FILE', `${at}: must be a folder or a safetensors file (not found)`);
  if (statSync(at).isFile()) return describeFile(at);
  if (existsSync(path.join(at, 'adapter_config.json'))) return describeAdapter(at);
  if (existsSync(path.join(at, 'config.json'))) return describeModel(at, flags);
  const checkpoints = await findCheckpoints(at);
  const newest = checkpoints[0];
  if (newest !== undefined) return describeAdapter(newest.folder);
  throw new LowrankError('ERR_FILE', `${at}: must hold config.json (a model), adapter_config.json (an adapter) or checkpoint-N (a run) (found none)`);
}

async function describeFile(file: string): Promise<Described> {
  const { tensors, metadata } = await readSafetensorsHeader(file);
  const rows = [...tensors].map(([name, { dtype, shape }]) => ({ name, dtype, shape, bytes: tensorBytes(dtype, shape) as number }));
  const total = rows.reduce((sum, row) => sum + row.bytes, 0);
  const lines = rows.map(({ name, dtype, shape, bytes: size }): [string, string] => [name, `${dtype.padEnd(5)} [${shape.join(', ')}]  ${bytes(size)}`]);
  const notes = Object.entries(metadata).map(([key, value]): [string, string] => [`metadata ${key}`, value]);
  return { description: { kind: 'safetensors', file, metadata, tensors: rows, bytes: total }, text: `${table([...lines, ...notes])}${count(rows.length)} tensors, ${bytes(total)}\n` };
}

async function describeAdapter(folder: string): Promise<Described> {
  const { config, layers, baseModelNameOrPath, fanInFanOut } = await readPeftFolder(folder);
  const matrices = [...layers.values()].flatMap(({ A, B }) => [A, B]);
  const parameters = matrices.reduce((sum, { shape }) => sum + shape.reduce((n, size) => n * size, 1), 0);
  const words = new Map<string, number>();
  for (const name of layers.keys()) words.set(name.slice(name.lastIndexOf('.') + 1), (words.get(name.slice(name.lastIndexOf('.') + 1)) ?? 0) + 1);
  const { rank, alpha, dropout, useRslora, rankPattern, alphaPattern, targets } = config;
  const description: Description = {
    kind: 'adapter', folder, base: baseModelNameOrPath ?? 'not named', rank, alpha, dropout, scaling: useRslora ? 'alpha / sqrt(rank)' : 'alpha / rank',
    targets: Array.isArray(targets) ? targets.join(', ') : (targets ?? "the family's usual ones"),
    ...(Object.keys(rankPattern).length > 0 ? { 'rank pattern': JSON.stringify(rankPattern) } : {}),
    ...(Object.keys(alphaPattern).length > 0 ? { 'alpha pattern': JSON.stringify(alphaPattern) } : {}),
    layers: layers.size, 'layers by name': [...words].map(([name, n]) => `${n} ${name}`).join(', '),
    parameters, dtype: [...new Set(matrices.map(({ dtype }) => dtype))].join(', '), 'weights stored': fanInFanOut ? '[in, out]' : '[out, in]',
    ...(await checkpointFacts(folder)),
  };
  return { description, text: shown(description) };
}

/** Where a checkpoint stands, or which ones a run's folder has. */
async function checkpointFacts(folder: string): Promise<Description> {
  const own = /^checkpoint-\d+$/.test(path.basename(path.resolve(folder)));
  const found = await findCheckpoints(own ? path.dirname(path.resolve(folder)) : folder);
  const here = own ? found.filter((each) => path.resolve(each.folder) === path.resolve(folder)) : found;
  return here.length === 0 ? {} : { checkpoints: here.map(({ step, steps }) => `step ${step} of ${steps}`).join(', ') };
}

async function describeModel(folder: string, flags: InspectFlags): Promise<Described> {
  await using device = await openDevice('cpu');
  const model = await loadModel(folder, { device });
  const { facts } = model;
  const seqLength = rowLength(flags.seqLength, model);
  using adapter = attachLora(model, { rank: flags.rank, targets: flags.targets });
  const tokens = flags.batchSize * seqLength;
  const run = (checkpointing: 'none' | 'blocks') => estimateMemory(model, adapter, { tokens, checkpointing });
  const [plain, checkpointed] = [run('none'), run('blocks')];
  const description: Description = {
    kind: 'model', folder, family: facts.family, parameters: facts.parameters, weights: facts.dtype, layers: facts.layers, 'hidden size': facts.hiddenSize,
    'intermediate size': facts.intermediateSize, heads: facts.heads, 'key-value heads': facts.kvHeads, 'head size': facts.headSize,
    vocabulary: facts.vocabSize, positions: facts.maxPositions, 'output head': facts.tied ? 'tied to the embedding' : 'its own',
  };
  const estimate = { batchSize: flags.batchSize, seqLength, rank: flags.rank, trainedParameters: adapter.parameters().size, none: plain, blocks: checkpointed };
  const text = `${shown(description)}
training with --batch-size ${flags.batchSize} --seq-length ${seqLength} --rank ${flags.rank} takes about
${table([
    ['weights', `${bytes(plain.weights)}  mapped from the file; the system can take them back`],
    ['adapter', `${bytes(plain.adapter)}  ${count(adapter.parameters().size)} parameters with gradients and AdamW's moments`],
    ['activations', `${bytes(plain.activations)}  (${bytes(checkpointed.activations)} with --checkpointing blocks)`],
    ['working', `${bytes(plain.working)}  (${bytes(checkpointed.working)})`],
    ['together', `${bytes(plain.total)}  (${bytes(checkpointed.total)}) beside the weights, and about 100 MiB for Node and packed tiles`],
  ], '  ')}`;
  model.dispose();
  return { description: { ...description, estimate }, text };
}

function shown(description: Description): string {
  return table(Object.entries(description).map(([name, value]) => [name, typeof value === 'number' ? grouped(value) : value]));
}

/** Whole numbers with commas, others as they are. */
function grouped(value: number): string {
  return Number.isInteger(value) ? count(value) : String(value);
}
